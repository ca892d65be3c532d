"""What quality costs without growing: the arms that a frontier goes through, and its curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from progtrain.comparison import frontier
from progtrain.comparison.arms import Group, same_size
from progtrain.comparison.frontier import Budgets
from progtrain.comparison.result import Frontier, Kind
from progtrain.comparison.samples import Sample, means

_POINTS = 60  # of a curve that is drawn


@dataclass(frozen=True)
class Prices:
    """A frontier in FLOPs, and in seconds where the runs tell them."""

    name: str
    flops: Budgets
    seconds: Budgets | None


def of_baseline(group: Group, groups: Sequence[Group], mode: str) -> Prices | None:
    """Through from-scratch runs of the size that a grown arm ends with: the best at each budget."""
    alike = [g for g in groups if g.kind is Kind.BASELINE and same_size(g.params, group.params)]
    sizes = [each.params for each in groups if each.kind is Kind.GROWN and each.done]
    several = any(not same_size(size, group.params) for size in sizes)
    name = f"baseline, {group.params:,.0f} parameters" if several and group.params else "baseline"
    return _through(name, alike, mode, frontier.best_at_each)


def of_fixed(groups: Sequence[Group], mode: str) -> Prices | None:
    """Through the best of all sizes that never grow at each budget; None for a single size."""
    still = [group for group in groups if group.kind is not Kind.GROWN]
    if not any(group.kind is Kind.FIXED and group.done for group in still):
        return None
    return _through("best fixed size", still, mode, frontier.undominated)


def drawn(prices: Prices, mode: str) -> Frontier:
    """The frontier in FLOPs as it is told and drawn."""
    samples = prices.flops.samples
    losses, costs = means(samples)
    curve = frontier.fitted(prices.flops, losses, costs)
    law = curve.floor is not None and curve.scale is not None and curve.power is not None
    low, high = curve.measured
    at = np.linspace(low, high, _POINTS if high > low else 1)
    floor, scale, power = (
        float(each[0]) if each is not None else None
        for each in (curve.floor, curve.scale, curve.power)
    )
    if law:
        assert scale is not None and power is not None
        scale = scale * math.exp(power * curve.origin)
    quality = [float(curve.loss(np.array([each]))[0]) for each in at]
    points = zip(np.exp(costs[0]), losses[0], samples, strict=True)
    return Frontier(
        name=prices.name,
        form=prices.flops.form,
        floor=floor,
        scale=scale,
        power=power,
        points=tuple((float(c), _quality(float(y), mode), sample.name) for c, y, sample in points),
        curve=tuple((math.exp(c), _quality(y, mode)) for c, y in zip(at, quality, strict=True)),
    )


def _through(
    name: str,
    groups: Sequence[Group],
    mode: str,
    choose: Callable[[Sequence[Sample]], list[int]],
) -> Prices | None:
    samples = {g.name: s for g in groups if (s := g.sample(mode, lambda run: run.flops))}
    if not samples:
        return None
    each = list(samples.values())
    chosen = [each[place] for place in choose(each)]
    names = [sample.name for sample in chosen]
    timed = [
        sample
        for group in groups
        if group.name in names and (sample := group.sample(mode, lambda run: run.seconds))
    ]
    seconds = frontier.budgets(timed) if len(timed) == len(chosen) else None
    return Prices(name, frontier.budgets(chosen), seconds)


def _quality(loss: float, mode: str) -> float:
    return loss if mode == "min" else 1 - loss
