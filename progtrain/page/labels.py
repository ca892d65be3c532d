"""Names beside what they name, where there is room for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from progtrain.page.chart import Style

_LETTER, _HEIGHT = 7.2, 14.5


@dataclass(frozen=True)
class Label:
    """A name at a place; `anchor` as in SVG."""

    text: str
    x: float
    y: float
    anchor: str
    key: str
    style: Style
    marked: bool = False  # with its marker in front of it

    @property
    def box(self) -> tuple[float, float, float, float]:
        width = len(self.text) * _LETTER
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - _HEIGHT + 3, left + width, self.y + 3


class Labels:
    """Places labels one by one; one that fits nowhere is left out, its tooltip says it."""

    def __init__(self, left: float, top: float, right: float, bottom: float) -> None:
        self._area = left, top, right, bottom
        self._taken: list[tuple[float, float, float, float]] = []
        self._beside: list[Label] = []
        self._ends: list[Label] = []

    def occupy(self, left: float, top: float, right: float, bottom: float) -> None:
        self._taken.append((left, top, right, bottom))

    def beside(self, text: str, at: tuple[float, float], key: str, style: Style) -> None:
        """Near a point, once all points are known."""
        self._beside.append(Label(text, *at, "start", key, style))

    def at_end(
        self, text: str, at: tuple[float, float], key: str, style: Style, marked: bool
    ) -> None:
        """Right of a line; labels that come too near to each other are moved apart."""
        self._ends.append(Label(text, *at, "start", key, style, marked))

    def placed(self) -> Iterator[Label]:
        for label in self._apart():
            self._taken.append(label.box)
            yield label
        for label in self._beside:
            for other in _around(label):
                if self._free(other):
                    self._taken.append(other.box)
                    yield other
                    break

    def _apart(self) -> list[Label]:
        """Labels of ends, from top to bottom, none over another."""
        _, top, _, bottom = self._area
        found: list[Label] = []
        for label in sorted(self._ends, key=lambda each: each.y):
            lowest = found[-1].y + _HEIGHT if found else top + 8
            found.append(replace(label, y=max(label.y, lowest)))
        limit = bottom + 4
        for index in reversed(range(len(found))):
            found[index] = replace(found[index], y=min(found[index].y, limit))
            limit = found[index].y - _HEIGHT
        return found

    def _free(self, label: Label) -> bool:
        left, top, right, bottom = label.box
        inside = left >= self._area[0] and right <= self._area[2] and top >= self._area[1] - 8
        return (
            inside
            and bottom <= self._area[3]
            and not any(
                left < r and right > le and top < b and bottom > t for le, t, r, b in self._taken
            )
        )


def _around(label: Label) -> Iterator[Label]:
    """Places around its point, the best first."""
    for dx, dy, anchor in (
        (9, 4, "start"),
        (-9, 4, "end"),
        (0, -10, "middle"),
        (0, 20, "middle"),
        (8, -9, "start"),
        (8, 18, "start"),
        (-8, -9, "end"),
        (-8, 18, "end"),
    ):
        yield replace(label, x=label.x + dx, y=label.y + dy, anchor=anchor)


def cut(text: str, most: int) -> str:
    """The text, or its beginning and its end."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"
