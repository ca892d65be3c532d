"""The plots of a page as files of their own: SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from progtrain.page import heat, picture, svg
from progtrain.page.chart import Chart
from progtrain.page.document import WIDE, figure_height, part
from progtrain.page.heat import Heat


def write_plots(charts: Sequence[Chart], grid: Heat | None, folder: Path) -> None:
    """Write every chart as `<name>.svg` and `<name>.png` into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        drawing = svg.draw(chart, WIDE, figure_height(chart), "-file")
        _write(drawing, folder / f"{chart.name}.svg")
        picture.save(chart, folder / f"{chart.name}.png")
    if grid is not None:
        _write(heat.draw(grid, WIDE, "-file"), folder / f"{grid.name}.svg")
        picture.save_heat(grid, folder / f"{grid.name}.png")


def _write(root: Element, path: Path) -> None:
    """A drawing that brings its colours and stands on a ground of them."""
    style = Element("style")
    style.text = f"{part('colours.css')}\n{part('chart.css')}\nsvg {{ background: var(--card); }}\n"
    root.insert(0, style)
    path.write_text(svg.text_of(root) + "\n", encoding="utf-8")
