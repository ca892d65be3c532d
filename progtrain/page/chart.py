"""A chart as plain data: what `svg` draws into a page and `picture` into files.

Coordinates are those of the data; what is not finite has no place in a chart.
"""

from __future__ import annotations

from dataclasses import dataclass, field

GREY = -1  # of arms that are many and are drawn behind the others
INK = 0  # the colour of text: of baselines
COLOURS = 7
# Okabe and Ito, "Color universal design" (2008): ink, then the seven that differ for everybody
OKABE_ITO = (
    "#1b1f24",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8a7a00",
)
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2")
MARKERS = ("circle", "square", "diamond", "triangle", "cross", "down")


@dataclass(frozen=True)
class Style:
    """How an arm looks everywhere; dash and marker say the same as the colour."""

    colour: int = INK  # GREY, INK or 1 to COLOURS
    dash: int = 0  # of DASHES, which repeat
    marker: int = 0  # of MARKERS, which repeat


@dataclass(frozen=True)
class Axis:
    """One axis: `unit` chooses how its ticks are written."""

    label: str
    unit: str = "number"  # number, flops, seconds, count
    log: bool = False
    names: tuple[str, ...] = ()  # of rows 0, 1, …, from the top; else it is a scale
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A curve; `band` is (x, low, high)."""

    key: str  # of the arm, the same in every chart of a page
    name: str
    style: Style
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...] = ()
    tip: str = ""
    label: bool = False  # written at its end
    steps: bool = False  # constant between points
    marks: bool = False  # a marker at every point
    ends: bool = True  # a marker at its end


@dataclass(frozen=True)
class Spot:
    """A point with error bars."""

    key: str
    name: str
    style: Style
    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    tip: str = ""
    label: bool = False
    note: str = ""  # written at the right end of its row


@dataclass(frozen=True)
class Rule:
    """A reference line, or a shaded range where `until` is given."""

    at: float
    text: str
    vertical: bool = True
    until: float | None = None
    key: str = ""
    style: Style = field(default_factory=Style)


@dataclass(frozen=True)
class Chart:
    """One drawing; `name` is part of file names and ids."""

    name: str
    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    spots: tuple[Spot, ...] = ()
    rules: tuple[Rule, ...] = ()
    note: str = ""

    @property
    def empty(self) -> bool:
        return not any(line.points for line in self.lines) and not self.spots
