"""When to grow: pure functions of the run's history.

A growth policy asks its trigger only while no earlier growth is in its life cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration, Moment
from progtrain.errors import ConfigError, require
from progtrain.growth import remedies
from progtrain.run import Observation, Run


def last_growth(run: Run) -> Moment:
    """When the last growth's life cycle ended; the start of the run before the first."""
    return max((event.since for event in run.events), key=lambda m: m.step, default=Moment())


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
        require(self.mode in ("max", "min"), "mode", self.mode, "max or min")
        require(self.patience >= 1, "patience", self.patience, "a whole number >= 1")
        require(self.min_delta >= 0, "min_delta", self.min_delta, "a number >= 0")
        require(self.threshold >= 0, "threshold", self.threshold, "a number >= 0")

    def due(self, run: Run) -> str | None:
        patience = max(1, round(self.patience * remedies.patience(run)))
        threshold = self.threshold * remedies.threshold(run)
        seen = [o for o in run.history if self.metric in o.metrics]
        if run.history and not seen:
            known = ", ".join(sorted(run.history[-1].metrics))
            hint = f"Logged metrics: {known}."
            raise ConfigError(
                f"growth.trigger.metric must be a logged metric, got {self.metric!r}. {hint}"
            )
        since = last_growth(run)
        window = [o for o in seen if o.moment.step > since.step]
        if len(window) < patience:
            return None
        values = [self._value(o) for o in seen]
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

    def _value(self, observation: Observation) -> float:
        value = observation.metrics[self.metric]
        return value if self.mode == "max" else -value
