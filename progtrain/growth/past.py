"""What has happened so far, as those ask who decide when to grow."""

from __future__ import annotations

from progtrain.clock import Moment
from progtrain.run import Event, Run


def last_growth(run: Run) -> Moment:
    """When the last growth was integrated; while it lives, when it happened; else the start."""
    if not run.events:
        return Moment()
    last = run.events[-1]
    return last.moment if last.alive else last.since


def observed(run: Run, metric: str) -> list[tuple[Moment, float]]:
    """Every observation of a metric."""
    return [(o.moment, o.metrics[metric]) for o in run.history if metric in o.metrics]


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
