"""Loss over compute of runs that do not grow, and back: what a loss costs without growing.

Four budgets or more: loss = floor + scale * cost ** -power by least squares, with floor and scale
not negative (the law of Hestness et al. 2017, arXiv 1712.00409; of L = E + A C^-a in Hoffmann et
al. 2022, arXiv 2203.15556). Fewer, or where the law misses a budget: straight lines in the
logarithm of the cost, never rising (pooled as isotonic regression does). Between distant budgets
a line lies above a convex curve, which flatters what is compared with it.

All functions work on B sets of points at once, (B, K): the estimate is B = 1, a bootstrap many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from progtrain.comparison.samples import Array, Sample, means

REACH = 1.25  # factor beyond the measured costs up to which a frontier is believed
_SAME = 1.02  # budgets within this factor are one
_POWERS = np.geomspace(0.01, 5.0, 48)
_MISSED = 0.05  # share of the range of losses by which a law may miss a budget


@dataclass(frozen=True)
class Budgets:
    """The arms that a frontier goes through, by cost."""

    samples: tuple[Sample, ...]
    law: bool  # a power law, not lines

    @property
    def form(self) -> str:
        return "power law" if self.law else "lines"


@dataclass(frozen=True)
class Curve:
    """B curves through the same budgets; costs are logarithms."""

    costs: Array  # (B, K), rising
    losses: Array  # (B, K), as fitted; not rising
    floor: Array | None  # (B,) each; None for lines
    scale: Array | None  # of the law in cost / e ** origin
    power: Array | None
    origin: float = 0.0

    def loss(self, cost: Array) -> Array:
        """(B,) at log costs (B,) or (1,)."""
        if self.floor is None or self.scale is None or self.power is None:
            return _along(self.costs, self.losses, cost)
        return self.floor + self.scale * np.exp(-self.power * (cost - self.origin))

    def cost(self, loss: Array) -> Array:
        """The least log cost of a loss, (B,); inf where no cost gives it, -inf where any does."""
        if self.floor is None or self.scale is None or self.power is None:
            return _back(self.costs, self.losses, loss)
        above = loss - self.floor
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = self.origin - np.log(above / self.scale) / self.power
        flat = self.scale <= 0
        return np.where(above <= 0, np.inf, np.where(flat, -np.inf, cost))

    @property
    def measured(self) -> tuple[float, float]:
        """Least and largest log cost of the first curve's budgets."""
        return float(self.costs[0, 0]), float(self.costs[0, -1])

    def believed(self, cost: Array) -> Array:
        """Whether log costs are within the measured ones, stretched by `REACH`."""
        low, high = self.measured
        more = np.log(REACH if self.costs.shape[1] > 1 else _SAME)
        return (cost >= low - more - 1e-9) & (cost <= high + more + 1e-9)


def best_at_each(samples: Sequence[Sample]) -> list[int]:
    """Of each budget (costs within 2 %) the arm of the least mean loss, by cost."""
    losses, costs = (each[0] for each in means(samples))
    chosen: list[int] = []
    for index in np.argsort(costs, kind="stable"):
        if not chosen or costs[index] - costs[chosen[-1]] > np.log(_SAME):
            chosen.append(int(index))
        elif losses[index] < losses[chosen[-1]]:
            chosen[-1] = int(index)
    return chosen


def undominated(samples: Sequence[Sample]) -> list[int]:
    """Arms that neither a cheaper one nor a mixture of two others matches, by cost.

    The lower convex hull of loss over log cost, as far as it falls: a size that lies above the
    line between two budgets of another size is not the best anywhere, and would lift the curve.
    """
    losses, costs = (each[0] for each in means(samples))
    chosen: list[int] = []
    for index in best_at_each(samples):
        if chosen and losses[index] >= losses[chosen[-1]]:
            continue
        while len(chosen) > 1 and _above(costs, losses, chosen[-2], chosen[-1], index):
            chosen.pop()
        chosen.append(index)
    return chosen


def _above(x: Array, y: Array, first: int, middle: int, last: int) -> bool:
    """Whether the middle point is not below the line from the first to the last."""
    rise = (y[last] - y[first]) / (x[last] - x[first])
    return bool(y[middle] >= y[first] + rise * (x[middle] - x[first]))


def budgets(samples: Sequence[Sample]) -> Budgets:
    """Choose the form that these arms allow."""
    chosen = tuple(sorted(samples, key=lambda sample: float(sample.costs.mean())))
    if len(chosen) < 4:
        return Budgets(chosen, law=False)
    made = Budgets(chosen, law=True)
    losses, costs = means(chosen)
    missed = np.abs(fitted(made, losses, costs).losses[0] - losses[0])
    errors = np.array([_error(sample) for sample in chosen])
    bad = (missed > 3 * errors) & (missed > _MISSED * float(np.ptp(losses)))
    return Budgets(chosen, law=not bool(bad.any()))


def fitted(budgets: Budgets, losses: Array, costs: Array) -> Curve:
    """The curves through means, (B, K) or more columns, of which the first K are the budgets."""
    size = len(budgets.samples)
    x, y = costs[:, :size], losses[:, :size]
    counts = np.array([len(sample.seeds) for sample in budgets.samples], dtype=np.float64)
    if not budgets.law:
        order = np.argsort(x, axis=1, kind="stable")
        x, y = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1)
        return Curve(x, _falling(y, np.take(counts, order)), None, None, None)
    origin = float(x[0].mean())
    floor, scale, power = _law(x - origin, y, counts, bool(y[0].min() >= 0))
    at = floor[:, None] + scale[:, None] * np.exp(-power[:, None] * (x - origin))
    return Curve(x, at, floor, scale, power, origin)


def _law(x: Array, y: Array, counts: Array, positive: bool) -> tuple[Array, Array, Array]:
    """Least squares over floor and scale for each power; over powers by a grid that narrows."""
    powers = np.broadcast_to(_POWERS, (len(x), len(_POWERS)))
    floor = scale = power = np.zeros(len(x))
    for _ in range(4):
        floors, scales, errors = _at_powers(x, y, counts, powers, positive)
        best = np.argmin(errors, axis=1)[:, None]
        floor, scale, power = (
            np.take_along_axis(each, best, 1)[:, 0] for each in (floors, scales, powers)
        )
        last = powers.shape[1] - 1
        low = np.take_along_axis(powers, np.maximum(best - 1, 0), 1)
        high = np.take_along_axis(powers, np.minimum(best + 1, last), 1)
        powers = low * (high / low) ** np.linspace(0, 1, 9)
    return floor, scale, power


def _at_powers(
    x: Array, y: Array, counts: Array, powers: Array, positive: bool
) -> tuple[Array, Array, Array]:
    """Floor, scale and squared error, (B, P) each."""
    share = counts / counts.sum()
    z = np.exp(-powers[:, :, None] * x[:, None, :])  # (B, P, K)
    z_mean, y_mean = z @ share, (y @ share)[:, None]
    z_off, y_off = z - z_mean[:, :, None], y - y_mean
    across = np.einsum("bpk,bk,k->bp", z_off, y_off, share)
    within = np.einsum("bpk,bpk,k->bp", z_off, z_off, share)
    scale = np.maximum(across / np.maximum(within, 1e-300), 0.0)
    floor = y_mean - scale * z_mean
    if positive:
        alone = np.einsum("bpk,bk,k->bp", z, y, share) / ((z * z) @ share)
        scale = np.where(floor < 0, np.maximum(alone, 0.0), scale)
        floor = np.maximum(floor, 0.0)
    left = y[:, None, :] - floor[:, :, None] - scale[:, :, None] * z
    return floor, scale, (left * left) @ share


def _falling(y: Array, counts: Array) -> Array:
    """The nearest values that do not rise: the min over starts of the max over ends of means."""
    size = y.shape[1]
    sums = np.cumsum(np.pad(y * counts, ((0, 0), (1, 0))), axis=1)
    weights = np.cumsum(np.pad(counts, ((0, 0), (1, 0))), axis=1)
    falling = np.empty_like(y)
    for at in range(size):
        over = slice(at + 1, size + 1)  # ends
        greatest = [
            (
                (sums[:, over] - sums[:, start, None])
                / (weights[:, over] - weights[:, start, None])
            ).max(axis=1)
            for start in range(at + 1)
        ]
        falling[:, at] = np.min(greatest, axis=0)
    return falling


def _along(x: Array, y: Array, at: Array) -> Array:
    """Straight lines through (B, K) points, the outer ones stretched."""
    if x.shape[1] == 1:
        return y[:, 0] + np.zeros_like(at)
    at = np.broadcast_to(at, (len(x),))
    last = np.clip(np.sum(x <= at[:, None], axis=1), 1, x.shape[1] - 1)[:, None]
    x0, x1, y0, y1 = _ends(x, y, last)
    return y0 + (y1 - y0) * (at - x0) / np.maximum(x1 - x0, 1e-12)


def _back(x: Array, y: Array, loss: Array) -> Array:
    """The least x of the lines at which y is no more than the loss."""
    loss = np.broadcast_to(loss, (len(x),))
    if x.shape[1] == 1:
        return np.where(loss < y[:, 0], np.inf, -np.inf)
    last = np.clip(np.sum(y > loss[:, None], axis=1), 1, x.shape[1] - 1)[:, None]
    x0, x1, y0, y1 = _ends(x, y, last)
    fall = y0 - y1
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (x1 - x0) * (y0 - loss) / fall
    return np.where(fall > 0, at, np.where(loss < y1, np.inf, -np.inf))


def _ends(x: Array, y: Array, last: np.ndarray) -> tuple[Array, Array, Array, Array]:
    """Both ends of the segments that end at `last`."""
    pairs = [np.take_along_axis(each, last - at, 1)[:, 0] for each in (x, y) for at in (1, 0)]
    return pairs[0], pairs[1], pairs[2], pairs[3]


def _error(sample: Sample) -> float:
    """Standard error of the mean loss; 0 where one seed cannot show it."""
    n = len(sample.seeds)
    return float(sample.losses.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
