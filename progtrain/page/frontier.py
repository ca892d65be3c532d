"""Quality over compute: what is fitted to runs that do not grow, and where every arm lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from progtrain.comparison.result import Comparison, Frontier, Summary
from progtrain.page.arms import Look, tip
from progtrain.page.chart import INK, Axis, Chart, Line, Spot, Style
from progtrain.page.scale import wide


def chart(comparison: Comparison, looks: Sequence[Look]) -> Chart:
    """The fitted curves, and each arm with its standard deviations."""
    spots = [spot for look in looks if (spot := _spot(look, comparison))]
    spots.sort(key=lambda spot: spot.label)
    lines = [_line(f, index) for index, f in enumerate(comparison.frontiers)]
    costs = [spot.x for spot in spots] + [x for line in lines for x, _ in line.points]
    ys = [end for spot in spots for end in spot.y_range or (spot.y,)]
    room = 0.08 * (max(ys) - min(ys)) if ys else 0.0
    low, high = (min(ys) - room, max(ys) + room) if room else (None, None)
    better = "more is better" if comparison.mode == "max" else "less is better"
    told = [text for f in comparison.frontiers if (text := formula(f, comparison))]
    bars = "Bars are standard deviations over seeds." if any(s.y_range for s in spots) else ""
    return Chart(
        "frontier",
        f"{comparison.metric} over the FLOPs of whole runs",
        Axis("FLOPs of the whole run", "flops", log=wide(costs)),
        Axis(f"{comparison.metric} ({better})", low=low, high=high),
        tuple(lines),
        tuple(spots),
        note=" ".join([*told, bars]).strip(),
    )


def formula(frontier: Frontier, comparison: Comparison) -> str:
    """What was fitted, in words."""
    loss = comparison.metric if comparison.mode == "min" else f"1 − {comparison.metric}"
    count = len(frontier.points)
    noun = f"{count} point" if count == 1 else f"{count} points"
    numbers = frontier.floor, frontier.scale, frontier.power
    if any(number is None for number in numbers):
        return f"{frontier.name}: {frontier.form} between {noun}."
    floor, scale, power = numbers
    return (
        f"{frontier.name}: {loss} = {floor:.4g} + {scale:.3g} · FLOPs^−{power:.3g},"
        f" fitted to {noun}."
    )


def _line(frontier: Frontier, index: int) -> Line:
    points = tuple((x, y) for x, y in frontier.curve if math.isfinite(x) and math.isfinite(y))
    style = Style(INK, index, 0)
    told = f"{frontier.name} ({frontier.form})"
    return Line(f"frontier-{index}", frontier.name, style, points, tip=told, label=True, ends=False)


def _spot(look: Look, comparison: Comparison) -> Spot | None:
    arm = look.arm
    if arm.quality is None or arm.flops is None or not math.isfinite(arm.quality.mean):
        return None
    return Spot(
        look.key,
        look.short,
        look.style,
        arm.flops.mean,
        arm.quality.mean,
        _around(arm.flops),
        _around(arm.quality),
        tip(look, comparison),
        label=look.shown,
    )


def _around(value: Summary) -> tuple[float, float] | None:
    """One standard deviation to both sides, where there is one."""
    if not value.std or not math.isfinite(value.std):
        return None
    return value.mean - value.std, value.mean + value.std
