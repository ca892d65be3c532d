"""When a run is over."""

from __future__ import annotations

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
    monitor = setup.monitors.get(stopping(run) or "")
    if monitor is not None and monitor.remedy == "stop":
        return StopReason.MONITOR
    if stop.max_flops is not None and now.flops + coming > stop.max_flops:
        return StopReason.FLOPS
    if stop.max_seconds is not None and now.seconds >= stop.max_seconds:
        return StopReason.SECONDS
    return StopReason.DURATION if run.clock.fraction >= 1 else None


def fruitless(run: Run, patience: int | None) -> bool:
    """Whether the last `patience` growths in a row brought no new best of the primary metric.

    Asked when another growth is due; growths that are still alive have not had their time.
    """
    done = [event for event in run.grown if not event.alive]
    if patience is None or len(done) < patience:
        return False
    sign = 1 if run.mode == "max" else -1
    seen = [
        (o.moment.step, sign * o.metrics[run.metric])
        for o in run.history
        if run.metric in o.metrics
    ]
    since = done[-patience].moment.step
    before = [value for step, value in seen if step <= since]
    after = [value for step, value in seen if step > since]
    return bool(before) and bool(after) and max(after) <= max(before)
