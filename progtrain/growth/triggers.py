"""When to grow: pure functions of the run's history.

A growth policy asks its trigger only while no earlier growth is in its life cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.errors import require
from progtrain.growth import remedies
from progtrain.growth.condition import Condition
from progtrain.growth.past import last_growth, required
from progtrain.metrics import canonical, instead, logged
from progtrain.run import Run


@dataclass(frozen=True)
class Every:
    """Due when `interval` has passed since the last growth was integrated, or since the start."""

    interval: str = "15%"

    def __post_init__(self) -> None:
        length = Duration.parse(self.interval, "interval")
        require(length.value > 0, "interval", self.interval, "longer than 0")

    def due(self, run: Run) -> str | None:
        length = Duration.parse(self.interval, "interval")
        if run.clock.progress(last_growth(run), length) < 1:
            return None
        return f"{length} have passed" + (" since the last growth" if run.events else "")


@dataclass(frozen=True)
class Plateau:
    """Due when the present capacity is exhausted.

    Looks at the last `patience` observations since the last growth was integrated. Due if none of
    them beats the best value before them by more than `min_delta` (the best is kept across
    growths), or if the relative improvement an observation over them is below `threshold`.
    """

    metric: str = "val/accuracy"  # any logged metric
    mode: str = "max"  # max: larger is better; min: smaller is better
    patience: int = 3  # observations
    min_delta: float = 0.0  # in units of the metric
    threshold: float = 0.0  # relative improvement an observation; 0: not used

    def __post_init__(self) -> None:
        metric = canonical(self.metric)
        allowed = f"a metric that evaluations log ({', '.join(logged())})"
        require(metric is not None, "metric", self.metric, allowed, instead(self.metric).strip())
        object.__setattr__(self, "metric", metric)
        require(self.mode in ("max", "min"), "mode", self.mode, "max or min")
        require(self.patience >= 1, "patience", self.patience, "a whole number >= 1")
        require(self.min_delta >= 0, "min_delta", self.min_delta, "a number >= 0")
        require(self.threshold >= 0, "threshold", self.threshold, "a number >= 0")
        slope = self.threshold == 0 or self.patience > 1
        hint = "One observation has no slope: set patience to 2 or more."
        require(slope, "threshold", self.threshold, "0 where patience is 1", hint)

    def due(self, run: Run) -> str | None:
        patience = max(1, round(self.patience * remedies.patience(run)))
        threshold = self.threshold * remedies.threshold(run)
        sign = 1 if self.mode == "max" else -1
        seen = required(run, self.metric, "growth.trigger.metric")
        since = last_growth(run)
        if len([m for m, _ in seen if m.step > since.step]) < patience:
            return None
        values = [sign * value for _, value in seen]
        recent, before = values[-patience:], values[:-patience]
        if before and max(recent) <= max(before) + self.min_delta:
            return (
                f"{self.metric} has not improved on {abs(max(before)):.4g}"
                f" for {patience} observations"
            )
        rate = (recent[-1] - recent[0]) / max(abs(recent[0]), 1e-12) / max(patience - 1, 1)
        if patience > 1 and rate < threshold and threshold > 0:
            return f"{self.metric} improves by {rate:.2g} an observation, less than the threshold"
        return None


@dataclass(frozen=True)
class When:
    """Due while a condition holds, such as `flat(val/loss, 3) and since_growth >= 2`."""

    condition: str

    def __post_init__(self) -> None:
        Condition.parse(self.condition, "condition")

    def due(self, run: Run) -> str | None:
        condition = Condition.parse(self.condition, "condition")
        condition.check(run)
        return condition.told(run) if condition.holds(run) else None
