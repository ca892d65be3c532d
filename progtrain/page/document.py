"""Pages out of templates: everything in one file, and nothing in it that was not escaped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from progtrain import __version__
from progtrain.page import heat, svg
from progtrain.page.chart import Chart
from progtrain.page.heat import Heat

_TEMPLATES = Path(__file__).parent / "templates"
WIDE, HALF, _NARROW = 860, 540, 360


@dataclass(frozen=True)
class Figure:
    """A chart with its drawing for wide and for narrow windows."""

    chart: Chart | Heat
    drawings: Markup


def figure(chart: Chart, width: int = WIDE, height: int = 430) -> Figure:
    """The chart, drawn twice; CSS shows the one that fits."""
    wide = svg.draw(chart, width, figure_height(chart, height), "-wide")
    return _figure(chart, wide, svg.draw(chart, _NARROW, figure_height(chart, 320), "-narrow"))


def figure_height(chart: Chart, usual: int = 430) -> int:
    """What its rows need, or the usual height where it has none."""
    rows = len(chart.y.names)
    return max(110, 72 + 26 * rows) if rows else usual


def heat_figure(grid: Heat) -> Figure:
    """The grid, drawn twice."""
    wide = heat.draw(grid, WIDE, "-wide")
    return _figure(grid, wide, heat.draw(grid, _NARROW, "-narrow"))


def _figure(chart: Chart | Heat, wide: Element, narrow: Element) -> Figure:
    wide.set("class", "chart wide")
    narrow.set("class", "chart narrow")
    # made of elements whose text was escaped when they became markup
    return Figure(chart, Markup(svg.text_of(wide) + svg.text_of(narrow)))


def document(template: str, **content: object) -> str:
    """The template with `content`; styles and scripts are part of it."""
    return (
        _environment()
        .get_template(template)
        .render(
            **content,
            style=part("style.css"),
            colours=part("colours.css"),
            chart_style=part("chart.css"),
            script=part("page.js"),
            version=__version__,
        )
    )


@cache
def part(name: str) -> Markup:
    """A style sheet or script of ours."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
