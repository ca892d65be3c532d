"""The metric over FLOPs, seconds and steps: a curve an arm, a band over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from progtrain.comparison.result import Comparison, Row, RunOf
from progtrain.page.arms import FEW, Look, tip
from progtrain.page.chart import Axis, Chart, Line, Rule
from progtrain.page.scale import time_unit

AXES = ("flops", "seconds", "steps")
_POINTS = 160
_SETTLED = 0.35  # share of a run whose values do not stretch the axis


def charts(comparison: Comparison, looks: Sequence[Look]) -> list[Chart]:
    """One for each of AXES."""
    return [_chart(comparison, looks, axis) for axis in AXES]


def _chart(comparison: Comparison, looks: Sequence[Look], by: str) -> Chart:
    last = [_at(run.rows[-1], by) for a in comparison.arms for run in a.runs if run.rows]
    size, name = time_unit(max(last, default=0.0)) if by == "seconds" else (1.0, by)
    lines: list[Line] = []
    rules: list[Rule] = []
    for look in sorted(looks, key=lambda each: each.shown):
        line = _line(look, by, size, len(looks) > FEW, tip(look, comparison))
        if line is not None:
            lines.append(line)
        if look.shown:
            rules += _stages(look, by, size)
    low, high = _window(lines)
    better = "more is better" if comparison.mode == "max" else "less is better"
    label = {"flops": "FLOPs, growth and teachers included", "steps": "optimizer steps"}
    unit = {"flops": "flops", "seconds": "number", "steps": "count"}
    return Chart(
        f"curve-{by}",
        f"{comparison.metric} over {'FLOPs' if by == 'flops' else by}",
        Axis(label.get(by, name), unit[by], low=0.0),
        Axis(f"{comparison.metric} ({better})", low=low, high=high),
        tuple(lines),
        rules=tuple(rules),
    )


def _line(look: Look, by: str, size: float, many: bool, told: str) -> Line | None:
    """The mean over the runs that came to their end; over all runs where none has."""
    runs = [run for run in look.arm.runs if run.status == "done"]
    curves = [found for run in runs or look.arm.runs if (found := _curve(run, by, size))]
    if not curves:
        return None
    grid = _grid(curves, _POINTS if not many else _POINTS // 2 if look.shown else _POINTS // 4)
    values = np.array([np.interp(grid, *np.array(curve).T) for curve in curves])
    band: list[tuple[float, float, float]] = []
    if len(curves) > 1 and look.shown:
        ends = zip(grid, values.min(axis=0), values.max(axis=0), strict=True)
        band = [(float(x), float(low), float(high)) for x, low, high in ends]
    mean = [(float(x), float(y)) for x, y in zip(grid, values.mean(axis=0), strict=True)]
    return Line(
        look.key,
        look.short,
        look.style,
        tuple(mean),
        tuple(band),
        told,
        label=look.shown,
        ends=look.shown,
    )


def _curve(run: RunOf, by: str, size: float) -> list[tuple[float, float]]:
    found = [(_at(row, by) / size, row.quality) for row in run.rows]
    return [(x, y) for x, y in found if math.isfinite(x) and math.isfinite(y)]


def _grid(curves: Sequence[Sequence[tuple[float, float]]], most: int) -> list[float]:
    """Where all seeds were evaluated, or about: the range that every seed covers."""
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if low >= high:
        return [high]
    inner = {x for curve in curves for x, _ in curve if low <= x <= high}
    if len(inner) <= most:
        return sorted({low, high, *inner})
    return [low + (high - low) * i / (most - 1) for i in range(most)]


def _stages(look: Look, by: str, size: float) -> list[Rule]:
    """When the arm grew: the mean over its runs of each growth that all of them had."""
    grown = [run.growths for run in look.arm.runs if run.status == "done" and run.growths]
    found: list[Rule] = []
    for several in zip(*grown, strict=False):
        at = fmean(float(getattr(g, "step" if by == "steps" else by)) for g in several) / size
        first = several[0]
        text = f"{look.arm.name} grows: {first.stage}, to {first.params_after:,.0f} parameters"
        found.append(Rule(at, text, key=look.key, style=look.style))
    return found


def _at(row: Row, by: str) -> float:
    return float(row.step if by == "steps" else getattr(row, by))


def _window(lines: Sequence[Line]) -> tuple[float | None, float | None]:
    """The range of values after the steep beginning, with a little room."""
    kept: list[float] = []
    for line in lines:
        ends = line.band or [(x, y, y) for x, y in line.points]
        start = ends[-1][0] * _SETTLED
        settled = [part for part in ends if part[0] >= start]
        kept += [value for _, *both in settled for value in both]
    if not kept or min(kept) == max(kept):
        return None, None
    room = 0.05 * (max(kept) - min(kept))
    return min(kept) - room, max(kept) + room
