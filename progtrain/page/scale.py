"""Where ticks stand on an axis and what is written at them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from progtrain.page.chart import Axis, Chart
from progtrain.report.units import flops

_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)
_TIMES = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))


@dataclass(frozen=True)
class Scale:
    """From values to shares of the axis: 0 at its low end, 1 at its high end."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        value = max(value, self.low * 1e-6)
        return math.log(value / self.low) / math.log(self.high / self.low)


def scales(chart: Chart) -> tuple[Scale, Scale]:
    """Of x and y, with room around what is drawn."""
    xs = [x for line in chart.lines for x, _ in line.points]
    ys = [y for line in chart.lines for _, y in line.points]
    ys += [y for line in chart.lines for _, *both in line.band for y in both]
    for spot in chart.spots:
        xs += [spot.x, *(spot.x_range or ())]
        ys += [spot.y, *(spot.y_range or ())]
    for rule in chart.rules:
        if rule.until is None and not rule.key:
            (xs if rule.vertical else ys).append(rule.at)
    room = 0.0 if chart.lines and not chart.spots else 0.06
    return _scale(chart.x, xs, room), _scale(chart.y, ys, 0.06)


def _scale(axis: Axis, values: Sequence[float], room: float) -> Scale:
    if axis.names:
        return Scale(len(axis.names) - 0.5, -0.5)
    low = min(values, default=0.0) if axis.low is None else axis.low
    high = max(values, default=1.0) if axis.high is None else axis.high
    log = axis.log and low > 0
    if not high > low:
        pad = abs(low) * 0.05 or 0.5
        low, high = (low / 1.2, high * 1.2) if log else (low - pad, high + pad)
    if log:
        margin = (high / low) ** room
        return Scale(low / margin, high * margin, log=True)
    margin = room * (high - low)
    return Scale(
        low - (margin if axis.low is None else 0), high + (margin if axis.high is None else 0)
    )


def ticks(scale: Scale, count: int) -> list[float]:
    """At most about `count` round values within the scale."""
    if scale.log and scale.high / scale.low >= 4:
        first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**p for p in range(first, last + 1) for d in digits]
            found = [value for value in found if scale.low <= value <= scale.high]
            if len(found) <= count + 1:
                return found
        return found[:: math.ceil(len(found) / count)]
    return _linear(scale.low, scale.high, count)


def _linear(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in _NICE if n * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    found: list[float] = []
    while first * step <= high + step * 1e-9:
        found.append(first * step)
        first += 1
    return found


def texts(values: Sequence[float], unit: str, log: bool = False) -> list[str]:
    """What is written at ticks."""
    if unit == "flops":
        return [flops(value).removesuffix("FLOP").strip() for value in values]
    if unit == "count":
        return [_short(value) for value in values]
    return [f"{value:g}" for value in values] if log else _decimal(values)


def _short(value: float) -> str:
    """12 k, 3.5 M."""
    for size, word in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if word == ' k' else size):.3g}{word}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _decimal(values: Sequence[float]) -> list[str]:
    """As many decimals as the steps between them need."""
    largest = max((abs(value) for value in values), default=0.0)
    gaps = [b - a for a, b in pairwise(values) if b > a]
    if largest >= 1e5 or (largest and largest < 1e-3):
        return [f"{value:.3g}" for value in values]
    step = min(gaps, default=largest or 1.0)
    digits = next((d for d in range(7) if abs(round(step, d) - step) < step * 1e-6), 6)
    return [f"{value:.{digits}f}".replace("-", "−") for value in values]


def time_unit(longest: float) -> tuple[float, str]:
    """Seconds of the unit in which so many seconds are best told, and its name."""
    fitting = [pair for pair in _TIMES if longest >= 3 * pair[0]]
    return fitting[-1] if fitting else _TIMES[0]


def wide(values: Iterable[float]) -> bool:
    """Whether values need a logarithmic axis."""
    known = [value for value in values if value > 0]
    return bool(known) and max(known) / min(known) > 20
