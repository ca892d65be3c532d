"""When a run is over."""

from __future__ import annotations

from math import inf

from progtrain.clock import Duration, Moment
from progtrain.growth.past import last_growth, observed
from progtrain.growth.remedies import stopping
from progtrain.run import Run, StopReason
from progtrain.setup import Setup


def reached(run: Run, setup: Setup) -> StopReason | None:
    """The first limit that is reached. A step that would pass a FLOP limit is not taken."""
    stop, now = setup.stop, run.clock.now
    coming = run.step_flops
    last = run.last_metric
    if stop.target is not None and last is not None:
        ahead = last - stop.target if run.mode == "max" else stop.target - last
        if ahead >= 0:
            return StopReason.TARGET
    if stop.early_stopping is not None and stale(run, stop.early_stopping, stop.min_delta):
        return StopReason.EARLY_STOPPING
    monitor = setup.monitors.get(stopping(run) or "")
    if monitor is not None and monitor.remedy == "stop":
        return StopReason.MONITOR
    if stop.max_flops is not None and now.flops + coming > stop.max_flops:
        return StopReason.FLOPS
    if stop.max_seconds is not None and now.seconds >= stop.max_seconds:
        return StopReason.SECONDS
    return StopReason.DURATION if run.clock.fraction >= 1 else None


def stale(run: Run, length: str, min_delta: float) -> bool:
    """Whether the metric has had no new best for `length` at the evaluation of now.

    The time since the last growth's end counts alone, and while one is alive none passes; the best
    so far is that of the whole run.
    """
    if run.living or not run.history or run.history[-1].moment.step < run.clock.step:
        return False
    sign, best, since = (1 if run.mode == "max" else -1), -inf, Moment()
    for moment, value in observed(run, run.metric):
        if sign * value > best + (min_delta if best > -inf else 0):
            best, since = sign * value, moment
    begun = max(since, last_growth(run), key=lambda moment: moment.step)
    return run.clock.progress(begun, Duration.parse(length, "early_stopping")) >= 1


def fruitless(run: Run, patience: int | None) -> bool:
    """Whether the last `patience` growths in a row brought no new best of the primary metric.

    Asked when another growth is due; growths that are still alive have not had their time.
    """
    done = [event for event in run.grown if not event.alive]
    if patience is None or len(done) < patience:
        return False
    sign = 1 if run.mode == "max" else -1
    seen = [(moment.step, sign * value) for moment, value in observed(run, run.metric)]
    since = done[-patience].moment.step
    before = [value for step, value in seen if step <= since]
    after = [value for step, value in seen if step > since]
    return bool(before) and bool(after) and max(after) <= max(before)
