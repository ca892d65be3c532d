"""The metric over two settings, where the arms are a grid of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from xml.etree.ElementTree import Element

from progtrain.comparison.result import Comparison
from progtrain.page import svg
from progtrain.page.arms import Look
from progtrain.page.labels import cut
from progtrain.report import units

_USUAL = ("growth", "warmup")
_HEIGHT = 34.0


@dataclass(frozen=True)
class Heat:
    """A value for pairs of settings; `better` is its rank between 0 and 1."""

    name: str
    title: str
    down: str  # the setting whose values are rows
    across: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[str, str], tuple[float, float, int]]  # value, better, arms
    note: str = ""


def heat(comparison: Comparison, looks: Sequence[Look]) -> Heat | None:
    """The grid of growth and warmup, or of the two settings with the most values; None: no grid."""
    pairs = sorted(combinations(comparison.varying, 2), key=lambda pair: set(pair) != {*_USUAL})
    found = [grid for pair in pairs if (grid := _grid(comparison, looks, *pair))]
    if not found:
        return None
    usual = [grid for grid in found if {grid.down, grid.across} == {*_USUAL}]
    return (usual or sorted(found, key=lambda grid: -len(grid.cells)))[0]


def _grid(comparison: Comparison, looks: Sequence[Look], one: str, other: str) -> Heat | None:
    """At least two by two values, and at least half of the cells filled."""
    values: dict[tuple[str, str], list[float]] = {}
    for look in looks:
        settings, quality = look.arm.settings, look.arm.quality
        if one in settings and other in settings and quality and quality.mean == quality.mean:
            values.setdefault((settings[one], settings[other]), []).append(quality.mean)
    rows = tuple(dict.fromkeys(row for row, _ in values))
    columns = tuple(dict.fromkeys(column for _, column in values))
    if min(len(rows), len(columns)) < 2 or 2 * len(values) < len(rows) * len(columns):
        return None
    if len(columns) > len(rows):
        return _grid(comparison, looks, other, one)
    means = {place: fmean(several) for place, several in values.items()}
    low, high = min(means.values()), max(means.values())
    sign = 1 if comparison.mode == "max" else -1
    cells = {
        place: (mean, _better(sign * mean, *sorted((sign * low, sign * high))), len(values[place]))
        for place, mean in means.items()
    }
    several = any(count > 1 for *_, count in cells.values())
    note = "A cell is the mean over its arms, which differ in other settings." if several else ""
    title = f"{comparison.metric} over {one} and {other}"
    return Heat(
        "heat", title, one, other, rows, columns, cells, f"{note} Darker is better.".strip()
    )


def _better(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 1.0


def draw(heat: Heat, width: int, suffix: str = "") -> Element:
    """The grid as SVG."""
    most = 12 if width < 500 else 30
    names = [cut(row, most) for row in heat.rows]
    left = 12 + max(len(name) for name in [*names, cut(heat.down, most)]) * 6.6
    longest = min(max(len(name) for name in heat.columns), 18) * 6.6
    turned = longest > (width - left) / len(heat.columns)
    each = (width - left - (30 if turned else 0)) / len(heat.columns)
    top = 34.0 + (0.77 * longest if turned else 16.0)
    root = svg.figure(f"{heat.name}{suffix}", heat.title, width, top + _HEIGHT * len(names) + 6)
    svg.add(root, "text", heat.across, class_="name", x=width, y=14, text_anchor="end")
    svg.add(root, "text", cut(heat.down, most), class_="name", x=2, y=top - 8)
    for index, column in enumerate(heat.columns):
        x = left + (index + 0.5) * each
        if turned:
            move = f"translate({x + 4:.1f} {top - 8:.1f}) rotate(-50)"
            svg.add(root, "text", cut(column, 18), class_="tick", transform=move)
        else:
            svg.add(root, "text", column, class_="tick", x=x, y=top - 8, text_anchor="middle")
    for index, (row, name) in enumerate(zip(heat.rows, names, strict=True)):
        y = top + index * _HEIGHT
        svg.add(root, "text", name, class_="tick", x=left - 8, y=y + 21, text_anchor="end")
        for place, column in enumerate(heat.columns):
            if found := heat.cells.get((row, column)):
                _cell(root, heat, (row, column), (left + place * each, y), each, found)
    return root


def _cell(
    root: Element,
    heat: Heat,
    place: tuple[str, str],
    at: tuple[float, float],
    width: float,
    found: tuple[float, float, int],
) -> None:
    value, better, count = found
    group = svg.add(root, "g", class_="cell strong" if better > 0.55 else "cell")
    arms = f", mean of {count} arms" if count > 1 else ""
    told = f"{heat.down}={place[0]} {heat.across}={place[1]}: {units.metric(value)}{arms}"
    svg.add(group, "title", told)
    size = {"width": width - 2, "height": _HEIGHT - 2, "rx": 3.0}
    opacity = f"{0.06 + 0.94 * better:.2f}"
    svg.add(group, "rect", "", x=at[0] + 1, y=at[1] + 1, fill_opacity=opacity, **size)
    text = units.metric(value) if width > 46 else f"{value:.2f}"
    middle = {"x": at[0] + width / 2, "y": at[1] + 21}
    svg.add(group, "text", text, text_anchor="middle", **middle)
