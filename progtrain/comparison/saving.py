"""S_eq = 1 - C / C_frontier(loss): the share of compute saved at equal loss, with its interval.

Both the arm and the frontier vary in the draws, with common seeds together. An end of the interval
that lies where no baseline was measured is None: it is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from progtrain.comparison.frontier import REACH, Budgets, Curve, fitted
from progtrain.comparison.result import Estimate
from progtrain.comparison.samples import CONFIDENCE, Array, Sample, drawn, means


@dataclass(frozen=True)
class Draws:
    """How often means are drawn, and from which random numbers."""

    number: int = 2000
    seed: int = 0


def saving(arm: Sample, budgets: Budgets, draws: Draws) -> tuple[Estimate | None, str]:
    """S_eq of an arm, and why there is none or what is wrong with it; else an empty note."""
    if len(budgets.samples) < 2:
        return None, "S_eq needs from-scratch runs at two budgets at least, four for a power law."
    samples = [*budgets.samples, arm]
    losses, costs = means(samples)
    curve = fitted(budgets, losses, costs)
    needed = float(curve.cost(losses[:, -1])[0])
    if not curve.believed(np.array([needed]))[0]:
        return None, _beyond(needed, float(costs[0, -1]), curve)
    value = float(1 - np.exp(costs[0, -1] - needed))
    low, high, note = _interval(samples, budgets, curve, draws)
    stretched = needed < curve.measured[0] or needed > curve.measured[1]
    if stretched and not note:
        note = f"The frontier is stretched by up to {REACH} beyond its budgets."
    return Estimate(value, low, high), note


def described(budgets: Budgets) -> str:
    """The budgets of a frontier in words."""
    count = len(budgets.samples)
    return f"{budgets.form} through {count} budget{'s' * (count > 1)}"


def _interval(
    samples: Sequence[Sample], budgets: Budgets, curve: Curve, draws: Draws
) -> tuple[float | None, float | None, str]:
    made = drawn(samples, draws.number, np.random.default_rng(draws.seed))
    if made is None:
        single = [sample.name for sample in samples if len(sample.seeds) < 2]
        return None, None, f"No interval: one seed only of {', '.join(single)}."
    losses, costs = made
    needed = fitted(budgets, losses, costs).cost(losses[:, -1])
    outside = np.where(needed > curve.measured[1], np.inf, -np.inf)
    with np.errstate(over="ignore", invalid="ignore"):
        inside = 1 - np.exp(costs[:, -1] - np.where(np.isfinite(needed), needed, 0.0))
    known = curve.believed(needed)
    low, high = _ends(np.where(known, inside, outside))
    missing = [name for name, end in (("lower", low), ("upper", high)) if end is None]
    if not missing:
        return low, high, ""
    ends = " and ".join(missing)
    more = "more seeds, or further budgets from scratch, would tell"
    told = f"The {ends} end of the interval lies beyond the measured budgets: {more}."
    return low, high, told


def _ends(values: Array) -> tuple[float | None, float | None]:
    """The percentiles, the outer of two neighbours; None where one is not finite."""
    ordered = np.sort(values)
    cut = int(np.floor((1 - CONFIDENCE) / 2 * (len(ordered) - 1)))
    low, high = float(ordered[cut]), float(ordered[-1 - cut])
    return low if np.isfinite(low) else None, high if np.isfinite(high) else None


def _beyond(needed: float, cost: float, curve: Curve) -> str:
    """Why a loss has no price on this frontier, and what is known all the same."""
    low, high = curve.measured
    if needed > high:
        bound = 1 - np.exp(cost - high - np.log(REACH))
        least = f" The means alone would say {bound:.0%} saved at least." if bound > 0 else ""
        return (
            f"No run from scratch comes near its quality: that would take more than {REACH} times"
            f" the largest budget.{least} Train from scratch longer."
        )
    bound = np.exp(cost - low + np.log(REACH)) - 1
    most = f" The means alone would say {bound:.0%} more compute at least." if bound > 0 else ""
    return (
        f"It is worse than the smallest budget from scratch, by more than {REACH} times less"
        f" compute.{most} Add a smaller budget."
    )
