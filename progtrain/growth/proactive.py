"""Grow before the plateau: when capacity is predicted to gain more than steps at equal FLOPs.

The loss of a network of one size falls about as a power of what its training has cost, and the
loss of well trained networks about as a power of their parameters (Kaplan et al. 2020,
arXiv 2001.08361). Both are held against each other over the same coming FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from progtrain.clock import Duration, Unit
from progtrain.errors import require
from progtrain.growth.past import last_growth, observed, required
from progtrain.metrics import canonical, instead, logged, smaller_is_better
from progtrain.run import Event, Phase, Run

_LEAST = 3  # observations that a fit needs


@dataclass(frozen=True)
class Proactive:
    """Due when more parameters are predicted to lower the loss by more than more steps are.

    More steps: the last `window` observations since the last growth, fitted as loss = a c^-b with c
    the FLOPs of the run, by least squares of the logarithms, and followed for `horizon` (at most to
    the end of the run). More capacity: 1 - ratio^-e, times the share of the run that is left to use
    it. The exponent e is the mean of this run's integrated growths, log(loss before / loss at the
    end of its life) / log(parameters after / before); before the first it is `exponent`.

    What it cannot know: a growth's own exponent counts what the steps of its life would have gained
    without it; the prior is of language models trained to the end; noise of the metric goes into
    the fit as it is, so a short window jumps; and a loss that rises counts as one that stands.
    """

    metric: str = "val/loss"
    window: int = 5  # observations
    horizon: str = "20%"  # how far ahead gains are held against each other
    ratio: float = 2.0  # parameters after the next growth over those now
    exponent: float = 0.076  # of the loss in the parameters, before the first growth

    def __post_init__(self) -> None:
        name = canonical(str(self.metric))
        losses = ", ".join(metric for metric in logged() if smaller_is_better(metric))
        ok = name is not None and smaller_is_better(name)
        hint = instead(str(self.metric)).strip() if name is None else ""
        require(ok, "metric", self.metric, f"a logged loss ({losses})", hint)
        require(self.window >= _LEAST, "window", self.window, f"a whole number >= {_LEAST}")
        longer = Duration.parse(self.horizon, "horizon").value > 0
        require(longer, "horizon", self.horizon, "longer than 0")
        require(self.ratio > 1, "ratio", self.ratio, "a number > 1", "2 is twice as many.")
        require(self.exponent > 0, "exponent", self.exponent, "a number > 0")

    def due(self, run: Run) -> str | None:
        metric = canonical(self.metric) or self.metric
        since = last_growth(run)
        seen = required(run, metric, "growth.trigger.metric")
        points = [(at.flops, loss) for at, loss in seen if at.step > since.step][-self.window :]
        if len(points) < self.window or any(min(point) <= 0 for point in points):
            return None
        ahead = min(flops_of(run, Duration.parse(self.horizon, "horizon")), flops_left(run))
        by_steps = 1 - (1 + ahead / points[-1][0]) ** -max(0.0, decay(points))
        grown = exponents(run, metric)
        exponent = max(0.0, sum(grown) / len(grown)) if grown else self.exponent
        by_capacity = (1 - self.ratio**-exponent) * (1 - run.clock.fraction)
        if by_capacity <= by_steps:
            return None
        source = f"of {len(grown)} growths here" if grown else "a prior"
        return (
            f"over {self.horizon} more, steps are predicted to lower {metric} by {by_steps:.2%},"
            f" {self.ratio:g} times the parameters by {by_capacity:.2%} (exponent {exponent:.3g},"
            f" {source})"
        )


def decay(points: Sequence[tuple[float, float]]) -> float:
    """b of loss = a c^-b through (c, loss), by least squares of the logarithms."""
    xs, ys = [log(cost) for cost, _ in points], [log(loss) for _, loss in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return -slope / spread if spread else 0.0


def exponents(run: Run, metric: str) -> list[float]:
    """log(loss before / at the end of life) / log(parameters after / before) of every growth that
    is integrated and was seen before and since."""
    found = [_exponent(run, event, metric) for event in run.grown]
    return [each for each in found if each is not None]


def _exponent(run: Run, event: Event, metric: str) -> float | None:
    if event.phase is not Phase.INTEGRATED or event.params_after <= event.params_before:
        return None
    seen = [(moment.step, loss) for moment, loss in observed(run, metric) if loss > 0]
    before = [loss for step, loss in seen if step <= event.moment.step]
    since = [loss for step, loss in seen if step > event.moment.step and step >= event.since.step]
    if not before or not since:
        return None
    return log(before[-1] / since[0]) / log(event.params_after / event.params_before)


def flops_left(run: Run) -> float:
    """FLOPs until the end of the run with the network of now."""
    total = run.clock.total
    return flops_of(run, Duration(total.value * (1 - run.clock.fraction), total.unit))


def flops_of(run: Run, length: Duration) -> float:
    """What `length` costs with the network of now; seconds at the average pace so far."""
    total, now = run.clock.total, run.clock.now
    if length.unit is Unit.FRACTION:
        length = Duration(length.value * total.value, total.unit)
    samples = run.clock.in_samples(length, run.batch_size)
    if samples is not None:
        return samples / run.batch_size * run.step_flops
    if length.unit is Unit.FLOP:
        return length.value
    return length.value * now.flops / now.seconds if now.seconds else 0.0
