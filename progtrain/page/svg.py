"""A chart as SVG whose colours are CSS: the page's, or its own where it stands alone in a file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, tostring

from progtrain.page.chart import DASHES, GREY, Axis, Chart, Line, Rule, Spot, Style
from progtrain.page.labels import Labels, cut
from progtrain.page.scale import Scale, scales, texts, ticks
from progtrain.report.units import one_line

XMLNS = "http://www.w3.org/2000/svg"
_LETTER, _BOLD = 6.8, 7.3  # width of a letter of 12 px, about; fonts differ
_ROOMY = 500  # width from which names and notes have a place at the right
_MARKS = {
    "circle": "M-4.2,0a4.2,4.2 0 1,0 8.4,0a4.2,4.2 0 1,0 -8.4,0Z",
    "square": "M-3.7,-3.7H3.7V3.7H-3.7Z",
    "diamond": "M0,-5.2L5.2,0L0,5.2L-5.2,0Z",
    "triangle": "M0,-5L4.8,3.8H-4.8Z",
    "cross": "M-4.5,-1.6H-1.6V-4.5H1.6V-1.6H4.5V1.6H1.6V4.5H-1.6V1.6H-4.5Z",
    "down": "M0,5L4.8,-3.8H-4.8Z",
}


def draw(chart: Chart, width: int, height: int, suffix: str = "") -> Element:
    """The chart, `width` by `height` units of which 12 are the height of its letters."""
    return _Drawing(chart, width, height, suffix).root


def text_of(root: Element) -> str:
    """Markup to put into a page or a file; what was not markup before is none now."""
    return tostring(root, encoding="unicode")


def add(parent: Element, tag: str, text: str = "", **attributes: float | str) -> Element:
    """A child; `class_` is class, and `stroke_width` is stroke-width."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    child = SubElement(parent, tag, {name: _value(v) for name, v in named.items()})
    child.text = one_line(text) or None
    return child


def figure(name: str, title: str, width: float, height: float) -> Element:
    """An empty drawing."""
    root = Element("svg", {"xmlns": XMLNS, "class": "chart", "role": "img", "id": name})
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    add(root, "title", title)
    return root


def marker(style: Style) -> str:
    """The path of a marker around (0, 0)."""
    return list(_MARKS.values())[style.marker % len(_MARKS)]


def css(style: Style) -> str:
    return "cg" if style.colour == GREY else f"c{style.colour}"


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


class _Drawing:
    """One chart while it is drawn."""

    def __init__(self, chart: Chart, width: int, height: int, suffix: str) -> None:
        self.chart, self.width, self.height = chart, width, height
        self.id = f"{chart.name}{suffix}"
        self.x, self.y = scales(chart)
        self.y_ticks = self._ticks(chart.y, self.y, max(3, height // 52))
        longest = max((len(text) for _, text in self.y_ticks), default=0)
        self.left = min(14 + longest * _LETTER, width * 0.42)
        self.right = width - self._room()
        self.top, self.bottom = 26.0 if chart.y.label else 8.0, height - 46.0
        self.root = figure(self.id, chart.title, width, height)
        self.labels = Labels(self.left, self.top, float(width), self.bottom)
        self._frame()
        area = self._clip()
        for rule in chart.rules:
            self._rule(rule, area)
        for line in chart.lines:
            self._line(line, area)
        for spot in chart.spots:
            self._spot(spot, area)
        self._names()

    def _room(self) -> float:
        """At the right: for labels at the ends of lines, notes of rows, or nothing."""
        if self.width < _ROOMY:
            return 10.0
        names = [len(cut(line.name, 24)) for line in self.chart.lines if line.label]
        notes = [len(spot.note) for spot in self.chart.spots]
        longest = max([12 + n * _BOLD for n in names] + [n * _LETTER for n in notes], default=0.0)
        return 12 + longest

    def _ticks(self, axis: Axis, scale: Scale, count: int) -> list[tuple[float, str]]:
        if axis.names:
            most = 16 if self.width < _ROOMY else 34
            return [(float(i), cut(name, most)) for i, name in enumerate(axis.names)]
        values = ticks(scale, count)
        return list(zip(values, texts(values, axis.unit, scale.log), strict=True))

    def px(self, value: float) -> float:
        return self.left + self.x(value) * (self.right - self.left)

    def py(self, value: float) -> float:
        return self.bottom - self.y(value) * (self.bottom - self.top)

    def _frame(self) -> None:
        """Grid, ticks and the names of the axes."""
        chart, root = self.chart, self.root
        for value, text in self.y_ticks:
            y = self.py(value)
            add(root, "line", class_="grid", x1=self.left, x2=self.right, y1=y, y2=y)
            add(root, "text", text, class_="tick", x=self.left - 6, y=y + 4, text_anchor="end")
        room = 54 if chart.x.unit != "flops" else 66
        for value, text in self._ticks(chart.x, self.x, int((self.right - self.left) // room)):
            x = self.px(value)
            add(root, "line", class_="grid", x1=x, x2=x, y1=self.top, y2=self.bottom)
            add(root, "text", text, class_="tick", x=x, y=self.bottom + 17, text_anchor="middle")
        ends = {"x1": self.left, "x2": self.right, "y1": self.bottom, "y2": self.bottom}
        add(root, "line", "", class_="axis", **ends)
        middle = (self.left + self.right) / 2
        place = {"x": middle, "y": self.height - 8.0}
        add(root, "text", chart.x.label, class_="name", text_anchor="middle", **place)
        add(root, "text", chart.y.label, class_="name", x=2, y=14)

    def _clip(self) -> Element:
        clip = add(add(self.root, "defs"), "clipPath", id=f"{self.id}-area")
        size = {"width": self.right - self.left + 12, "height": self.bottom - self.top + 12}
        add(clip, "rect", "", x=self.left - 6, y=self.top - 6, **size)
        return add(self.root, "g", clip_path=f"url(#{self.id}-area)")

    def _rule(self, rule: Rule, area: Element) -> None:
        group = add(area, "g", class_=f"rule {css(rule.style)}")
        if rule.key:
            group.set("data-arm", rule.key)
        add(group, "title", rule.text)
        place, low, high = (
            (self.px, self.top, self.bottom) if rule.vertical else (self.py, self.left, self.right)
        )
        at = place(rule.at)
        if rule.until is not None:
            ends = sorted((at, place(rule.until)))
            size = {"x": ends[0], "y": low, "width": ends[1] - ends[0], "height": high - low}
            if not rule.vertical:
                size = {"x": low, "y": ends[0], "width": high - low, "height": ends[1] - ends[0]}
            add(group, "rect", "", class_="shade", **size)
        elif rule.vertical:
            add(group, "line", class_="stage", x1=at, x2=at, y1=low, y2=high)
        else:
            add(group, "line", class_="stage", x1=low, x2=high, y1=at, y2=at)

    def _line(self, line: Line, area: Element) -> None:
        group = _arm(area, line.key, line.style, line.tip or line.name)
        if line.band:
            upper = [(self.px(x), self.py(high)) for x, _, high in line.band]
            lower = [(self.px(x), self.py(low)) for x, low, _ in reversed(line.band)]
            add(group, "path", class_="band", d=_path([*upper, *lower]) + "Z")
        points = [(self.px(x), self.py(y)) for x, y in line.points]
        if not points:
            return
        drawn = _steps(points) if line.steps else points
        kind = {"class_": "line"}
        if dash := DASHES[line.style.dash % len(DASHES)]:
            kind["stroke_dasharray"] = dash
        add(group, "path", d=_path(drawn), **kind)
        add(group, "path", class_="near", d=_path(drawn))
        for x, y in points if line.marks or len(points) == 1 else points[-1:] if line.ends else ():
            self._mark(group, line.style, x, y)
        if line.label and self.width >= _ROOMY:
            place = self.right + 22, points[-1][1] + 4
            self.labels.at_end(cut(line.name, 24), place, line.key, line.style, line.ends)

    def _spot(self, spot: Spot, area: Element) -> None:
        group = _arm(area, spot.key, spot.style, spot.tip or spot.name)
        x, y = self.px(spot.x), self.py(spot.y)
        for ends in [spot.x_range] if spot.x_range else []:
            start, end = (self.px(end) for end in ends)
            add(group, "line", class_="error", x1=start, x2=end, y1=y, y2=y)
        for ends in [spot.y_range] if spot.y_range else []:
            start, end = (self.py(end) for end in ends)
            add(group, "line", class_="error", x1=x, x2=x, y1=start, y2=end)
        self._mark(group, spot.style, x, y)
        if spot.style.colour != GREY:
            self.labels.occupy(x - 5, y - 5, x + 5, y + 5)
        if spot.label:
            self.labels.beside(cut(spot.name, 24), (x, y), spot.key, spot.style)
        if spot.note and self.width >= _ROOMY:
            place = {"x": self.right + 8, "y": y + 4}
            add(self.root, "text", spot.note, class_="tick", data_arm=spot.key, **place)

    def _mark(self, group: Element, style: Style, x: float, y: float) -> None:
        move = f"translate({x:.1f} {y:.1f})"
        add(group, "path", class_="mark", d=marker(style), transform=move)

    def _names(self) -> None:
        for label in self.labels.placed():
            place = {"x": label.x, "y": label.y, "text_anchor": label.anchor}
            group = add(self.root, "g", class_=f"label {css(label.style)}", data_arm=label.key)
            add(group, "text", label.text, **place)
            if label.marked:
                self._mark(group, label.style, label.x - 10, label.y - 4)


def _arm(area: Element, key: str, style: Style, tip: str) -> Element:
    group = add(area, "g", class_=f"arm {css(style)}", tabindex="-1")
    group.set("data-arm", key)
    add(group, "title", tip)
    return group


def _path(points: Iterable[tuple[float, float]]) -> str:
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return "M" + "L".join(f"{_value(_near(x))},{_value(_near(y))}" for x, y in kept)


def _near(place: float) -> float:
    """Browsers draw nothing that lies too far away."""
    return min(max(place, -5000.0), 5000.0)


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase through the points."""
    found = [points[0]]
    for (_, before), (x, y) in pairwise(points):
        found += [(x, before), (x, y)]
    return found
