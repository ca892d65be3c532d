"""Charts as PNG by matplotlib, for papers and chats; it is imported when the first is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progtrain.page.chart import GREY, OKABE_ITO, Axis, Chart, Line, Rule, Spot, Style
from progtrain.page.heat import Heat
from progtrain.page.labels import cut
from progtrain.page.scale import Scale, scales, texts, ticks
from progtrain.report import units

_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)), (0, (9, 3)))
_MARKERS = ("o", "s", "D", "^", "P", "v")
_MUTED = "#5b6470"
_DPI = 150
_SMALL, _LABEL, _LARGE = 8, 10, 11  # points: ticks and legend; of an axis; the title
_MEASURED = 8  # of the texts in a column, the longest
_SLANT = 35  # degrees, of the names of columns
_PLAIN = {"pil_kwargs": {"compress_level": 3}}  # a tenth larger than by level 6, in half the time


def save(chart: Chart, path: Path) -> None:
    """Draw the chart into a PNG of about 1500 pixels' width."""
    rows = len(chart.y.names)
    drawing, axes = _empty()
    for rule in chart.rules:
        _rule(axes, rule)
    for line in chart.lines:
        _line(axes, line)
    for spot in chart.spots:
        _spot(axes, spot)
    x, y = scales(chart)
    _axis(axes.xaxis, chart.x, x, 8)
    written = _axis(axes.yaxis, chart.y, y, 7)
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    axes.grid(color="#e9ecf0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    names = axes.get_legend_handles_labels()[1]
    if names:
        place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
        axes.legend(fontsize=_SMALL, frameon=False, **place)
    high = max(1.7, 0.9 + 0.24 * rows) if rows else max(4.0, 0.19 * len(names))
    beside = 0.6 + _widest(drawing, names) if names else 0.0
    place = _Around(chart.title, _widest(drawing, written), 0.2, beside)
    _store(drawing, axes, (7.0, high), place, path)


def save_heat(heat: Heat, path: Path) -> None:
    """Draw the grid into a PNG."""
    drawing, axes = _empty()
    missing = (0.0, -1.0, 0)
    shown = [[heat.cells.get((r, c), missing)[1] for c in heat.columns] for r in heat.rows]
    axes.imshow(shown, cmap="Blues", vmin=-0.05, vmax=1.3, aspect="auto")
    for i, row in enumerate(heat.rows):
        for j, column in enumerate(heat.columns):
            if (row, column) in heat.cells:
                text = units.metric(heat.cells[row, column][0])
                axes.text(j, i, text, ha="center", va="center", fontsize=_SMALL)
    columns = [plain(cut(name, 18)) for name in heat.columns]
    slanted = {"rotation": _SLANT, "ha": "right", "fontsize": _SMALL}
    axes.set_xticks(range(len(columns)), columns, **slanted)
    rows = [plain(cut(name, 30)) for name in heat.rows]
    axes.set_yticks(range(len(rows)), rows, fontsize=_SMALL)
    axes.set_xlabel(plain(heat.across), color=_MUTED, fontsize=_LABEL)
    axes.set_ylabel(plain(heat.down), color=_MUTED, fontsize=_LABEL)
    size = 0.5 + 0.8 * len(columns), 0.3 + 0.34 * len(rows)
    long = _widest(drawing, columns)
    left = max(_widest(drawing, rows), long * math.cos(math.radians(_SLANT)) - 0.6)
    place = _Around(heat.title, left, 0.1 + long * math.sin(math.radians(_SLANT)), 0.0)
    _store(drawing, axes, size, place, path)


@dataclass(frozen=True)
class _Around:
    """What stands around the axes, in inches; so that a picture is drawn once, at its size."""

    title: str
    left: float  # the widest tick
    below: float  # the tallest one
    right: float  # the legend


def _empty() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing: Any = Figure(dpi=_DPI)
    FigureCanvasAgg(drawing)  # it knows how wide a text will be
    return drawing, drawing.add_axes((0, 0, 1, 1))


def _widest(drawing: Any, texts: Sequence[str], points: int = _SMALL) -> float:
    """Inches of the widest text."""
    from matplotlib.font_manager import FontProperties

    font, renderer = FontProperties(size=points), drawing.canvas.get_renderer()
    raw = (text.replace(r"\$", "$") for text in sorted(texts, key=len)[-_MEASURED:])
    widths = (renderer.get_text_width_height_descent(text, font, False)[0] for text in raw)
    return max(widths, default=0.0) / _DPI


def _store(drawing: Any, axes: Any, size: tuple[float, float], around: _Around, path: Path) -> None:
    """Draw it with axes of `size` inches, and room for what is around them."""
    labels = [[axis.get_label_text()] for axis in (axes.xaxis, axes.yaxis)]
    # no axis is shorter than what is written along it
    wide, high = (max(a, _widest(drawing, b, _LABEL)) for a, b in zip(size, labels, strict=True))
    title = plain(cut(around.title, 90))
    left, below = 0.2 + around.left, 0.17 + around.below
    right = max(0.35, around.right, _widest(drawing, [title], _LARGE) - wide + 0.1)
    whole = left + 0.25 + wide + right, below + 0.3 + high + 0.4
    drawing.set_size_inches(*whole)
    axes.set_position(((left + 0.25) / whole[0], (below + 0.3) / whole[1],
                       wide / whole[0], high / whole[1]))  # fmt: skip
    # places that are given are not sought, which takes longer than drawing
    axes.set_title(title, loc="left", fontsize=_LARGE, y=1.0)
    axes.xaxis.set_label_coords(0.5, -below / high)
    axes.yaxis.set_label_coords(-left / wide, 0.5)
    drawing.savefig(path, **_PLAIN)


def plain(text: str) -> str:
    """Text in which no character starts a formula."""
    return units.one_line(text).replace("$", r"\$")


def _colour(style: Style) -> str:
    return "#9aa3ad" if style.colour == GREY else OKABE_ITO[style.colour]


def _look(style: Style) -> dict[str, Any]:
    grey = style.colour == GREY
    return {
        "color": _colour(style),
        "linestyle": _DASHES[style.dash % len(_DASHES)],
        "linewidth": 0.7 if grey else 1.8,
        "alpha": 0.6 if grey else 1.0,
        "zorder": 2 if grey else 3,
    }


def _line(axes: Any, line: Line) -> None:
    if not line.points:
        return
    xs, ys = zip(*line.points, strict=True)
    named = {"label": plain(cut(line.name, 40))} if line.style.colour != GREY else {}
    draw = axes.step if line.steps else axes.plot
    more = {"where": "post"} if line.steps else {}
    draw(xs, ys, **_look(line.style), **named, **more)
    if line.band:
        xs, low, high = zip(*line.band, strict=True)
        axes.fill_between(xs, low, high, color=_colour(line.style), alpha=0.16, linewidth=0)


def _spot(axes: Any, spot: Spot) -> None:
    """A marker and its bars; `errorbar` would take ten times as long."""
    look = _look(spot.style)
    bar = {"color": look["color"], "linewidth": look["linewidth"], "alpha": look["alpha"]}
    if spot.x_range:
        axes.plot(spot.x_range, (spot.y, spot.y), zorder=look["zorder"], **bar)
    if spot.y_range:
        axes.plot((spot.x, spot.x), spot.y_range, zorder=look["zorder"], **bar)
    marked = {"linestyle": "none", "marker": _MARKERS[spot.style.marker % len(_MARKERS)]}
    named = {"label": plain(cut(spot.name, 40))} if spot.label else {}
    axes.plot([spot.x], [spot.y], **(look | marked), **named)


def _rule(axes: Any, rule: Rule) -> None:
    colour = _colour(rule.style)
    if rule.until is not None:
        span = axes.axvspan if rule.vertical else axes.axhspan
        span(rule.at, rule.until, color=colour, alpha=0.09, linewidth=0)
    else:
        across = axes.axvline if rule.vertical else axes.axhline
        across(rule.at, color=colour, linewidth=0.9, linestyle=":", alpha=0.8)


def _axis(axis: Any, told: Axis, scale: Scale, count: int) -> list[str]:
    """What is written at its ticks."""
    if scale.log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_minor_formatter("")
    if told.names:
        written = [plain(cut(name, 34)) for name in told.names]
        axis.set_ticks(range(len(written)), labels=written)
    else:
        values = ticks(scale, count)
        written = texts(values, told.unit, scale.log)
        axis.set_ticks(values, labels=written)
    axis.set_label_text(plain(told.label), color=_MUTED, fontsize=_LABEL)
    axis.set_tick_params(labelsize=_SMALL)
    return written
