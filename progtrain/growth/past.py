"""What has happened so far, as those ask who decide when to grow."""

from __future__ import annotations

from math import isfinite, nan

from progtrain.clock import Moment
from progtrain.errors import ConfigError
from progtrain.growth.declared import declined
from progtrain.run import Event, Run


def last_growth(run: Run) -> Moment:
    """When the structure was last decided on: the start of the run, before anything else.

    A growth that lives counts from when it happened, another from when it was integrated or rolled
    back, and a trial that no growth has won from its end.
    """
    moments = [event.moment if event.alive else event.since for event in run.events]
    return max([*moments, declined(run) or Moment()], key=lambda moment: moment.step)


def observed(run: Run, metric: str) -> list[tuple[Moment, float]]:
    """Every observation of a metric that is finite."""
    seen = [(o.moment, o.metrics.get(metric, nan)) for o in run.history]
    return [(moment, value) for moment, value in seen if isfinite(value)]


def required(run: Run, metric: str, setting: str) -> list[tuple[Moment, float]]:
    """Every observation of a metric; raises `ConfigError` where evaluations do not log it."""
    seen = observed(run, metric)
    if run.history and not any(metric in o.metrics for o in run.history):
        known = ", ".join(sorted(run.history[-1].metrics))
        hint = f"Logged metrics: {known}."
        raise ConfigError(f"{setting} must be a logged metric, got {metric!r}. {hint}")
    return seen


def without_improvement(run: Run, metric: str, smaller: bool, last: int) -> bool:
    """Whether the last observations, all since the last growth, did not beat the best before."""
    sign = -1 if smaller else 1
    seen = [(moment.step, sign * value) for moment, value in observed(run, metric)]
    since = [value for step, value in seen if step > last_growth(run).step]
    recent, before = [v for _, v in seen[-last:]], [v for _, v in seen[:-last]]
    return len(since) >= last and bool(before) and max(recent) <= max(before)


def recovered(run: Run, event: Event, metric: float | None, share: float) -> bool:
    """Whether `metric` is back at `share` of its value before the growth."""
    before = event.metric_before
    if before is None or metric is None:
        return before is None
    slack = (1 - share) * abs(before)
    return metric >= before - slack if run.mode == "max" else metric <= before + slack
