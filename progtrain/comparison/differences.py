"""Arm minus baseline at equal FLOPs, seconds and steps, with tests over seeds.

Paired by seed where seeds are shared, Welch's test otherwise; p values of the arms of one
comparison are corrected by Holm 1979, Scandinavian Journal of Statistics 6(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from progtrain.comparison.frontier import Budgets, fitted
from progtrain.comparison.result import Difference, Estimate
from progtrain.comparison.samples import Array, Sample, Tested, means, tested


def from_frontier(arm: Sample, budgets: Budgets, sign: float, against: str) -> Difference | None:
    """Arm minus the frontier at the arm's own cost, times `sign`; None beyond the budgets."""
    samples = [*budgets.samples, arm]
    losses, costs = means(samples)
    if not fitted(budgets, losses, costs).believed(costs[:, -1])[0]:
        return None

    def excess(losses: Array, costs: Array) -> Array:
        return sign * (losses[:, -1] - fitted(budgets, losses, costs).loss(costs[:, -1]))

    return _told(tested(samples, excess), against)


def from_arm(arm: Sample, other: Sample, sign: float, against: str) -> Difference:
    """Arm minus another one as they are, times `sign`."""
    shared = [seed for seed in arm.seeds if seed in other.seeds]
    if len(shared) > 1:  # the paired test leaves out what has no partner
        arm, other = _only(arm, shared), _only(other, shared)

    def excess(losses: Array, costs: Array) -> Array:
        return sign * (losses[:, 1] - losses[:, 0])

    return _told(tested([other, arm], excess), against)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Corrected p values, in the same order; None stays None and does not count.

    Reference: Holm 1979: the k-th smallest of m is multiplied by m - k + 1, and none is less than
    one before it.
    """
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[place] = least
    return corrected


def corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The same with `p_holm`."""
    values = holm([each.p if each else None for each in differences])
    return [
        replace(each, p_holm=p) if each else None
        for each, p in zip(differences, values, strict=True)
    ]


def _told(found: Tested, against: str) -> Difference:
    estimate = Estimate(found.value, found.low, found.high)
    return Difference(against, estimate, found.p, None, found.pairs)


def _only(sample: Sample, seeds: Sequence[object]) -> Sample:
    places = [sample.seeds.index(seed) for seed in seeds]
    kept = tuple(sample.seeds[place] for place in places)
    take = np.array(places)
    return Sample(sample.name, kept, sample.losses[take], sample.costs[take])
