"""What is wrong with a plan: sizes, budgets and times that cannot be; and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from progtrain.clock import Clock, Duration, Unit
from progtrain.curriculum.forecast import Timeline
from progtrain.growth.life import lengths
from progtrain.hardware.engine import Engine
from progtrain.report.reporter import PlannedStage
from progtrain.run import Run, Stage
from progtrain.settings import Stopping
from progtrain.setup import Setup


def start_too_large(params: int, limit: int | None) -> str | None:
    """A first network beyond `stop.max_params`."""
    if limit is None or params <= limit:
        return None
    return (
        f"The start model has {params:,} parameters; stop.max_params={limit:,}. Raise it, or"
        " shrink growth.start or the model."
    )


def step_too_dear(flops: float, stop: Stopping) -> str | None:
    """A FLOP limit below one step of the first network."""
    if stop.max_flops is None or flops <= stop.max_flops:
        return None
    return (
        f"stop.max_flops={stop.max_flops:.3g} is less than one training step of the start model"
        f" ({flops:.3g} FLOPs). Raise it, or shrink the model or train.batch_size."
    )


def too_large(rows: Sequence[PlannedStage], limit: int | None) -> str | None:
    """A stage beyond `stop.max_params`."""
    before, row = rows[-2], rows[-1]
    if limit is None or row.params <= limit or before.params > limit:
        return None
    return (
        f"Stage {row.name!r} would need {row.params:,} parameters; stop.max_params={limit:,}"
        f" ({before.name} has {before.params:,}). Raise it, or declare less growth."
    )


def no_room(rows: Sequence[PlannedStage], engine: Engine) -> str | None:
    """A stage whose growth cannot fit: the old network stands beside the new one."""
    before, row, free = rows[-2], rows[-1], engine.free_memory()
    need = row.memory + before.memory
    if free is None or need - rows[0].memory <= free:
        return None
    return (
        f"Stage {row.name!r} would need at least {need / 2**30:,.1f} GiB for weights, gradients"
        f" and optimizer state while it grows ({row.params:,} parameters beside"
        f" {before.params:,}); {free / 2**30:,.1f} GiB are free. Declare less growth, or train"
        " on another device."
    )


def beyond_the_end(stages: Mapping[str, object], total: Duration) -> Iterator[str]:
    """Stages whose times are not before the end, as far as that is known without the data."""
    for name, stage in stages.items():
        told = getattr(stage, "at", None)
        if told is None:
            continue
        at = Duration.parse(told, "at")
        share = at.unit is Unit.FRACTION and at.value >= 1
        if share or (at.unit is total.unit and at.value >= total.value):
            yield _beyond(name, at, total)


def mistimed(stages: Sequence[Stage], run: Run, setup: Setup) -> Iterator[str]:
    """Stages beyond the end, or whose life does not fit before the next one's time.

    Only times that convert into samples can be compared.
    """
    clock, timeline = run.clock, Timeline.of(run)
    end = timeline.after(0, clock.total)
    times = [timeline.after(0, stage.at) if stage.at else None for stage in stages]
    lasting = lengths(setup)
    for stage, time, following in zip(stages, times, [*times, end][1:], strict=True):
        if time is None or following is None or end is None or stage.at is None:
            continue
        if time >= end:
            yield _beyond(stage.name, stage.at, clock.total)
        elif time >= following and following < end:
            yield f"growth.stages.{stage.name}.at={stage.at} is not before the stage after it."
        elif lived(time, lasting.values(), timeline) > min(following, end) * (1 + 1e-9):
            first, last = timeline.step(time) or 0, timeline.step(min(following, end)) or 0
            words = ", ".join(f"{phase.value} {length}" for phase, length in lasting.items())
            yield (
                f"The life of growth {stage.name!r} ({words}) does not fit into its stage, which"
                f" lasts {last - first:.0f} steps from {stage.at}. Shorten the warmup"
                " or growth.consolidation, or move the stages apart."
            )


def _beyond(name: str, at: Duration, total: Duration) -> str:
    return f"growth.stages.{name}.at={at} is not before the end of the run, train.duration={total}."


def lived(time: float, lasting: Iterable[Duration], timeline: Timeline) -> float:
    """The sample at which a growth of `time` is integrated, as far as that can be known."""
    for length in lasting:
        after = timeline.after(time, length)
        time = time if after is None else after
    return time


def warnings(run: Run, setup: Setup) -> Iterator[str]:
    """What is odd about a plan and no error: a budget that ends before anything has grown."""
    limit, stage = setup.stop.max_flops, None
    if limit is not None and not run.events and run.grown_out is None:
        stage = setup.growth.upcoming(run)
    if limit is None or not isinstance(stage, Stage) or stage.at is None:
        return
    step = _step_of(stage.at, run.clock, run)
    last = int(limit / run.step_flops)
    if step is not None and step > last:
        yield (
            f"stop.max_flops={limit:.3g} is spent at step {last:,}, before {stage.name} grows at"
            f" step {step:,.0f} ({stage.at}): nothing will grow. Raise it, or grow earlier."
        )


def _step_of(at: Duration, clock: Clock, run: Run) -> float | None:
    """The step at which a time comes with the network of now."""
    total = clock.total
    if at.unit is Unit.FRACTION:
        at = Duration(at.value * total.value, total.unit)
    if at.unit is Unit.FLOP:
        return at.value / run.step_flops
    sample = Timeline.of(run).after(0, at)
    return None if sample is None else Timeline.of(run).step(sample)
