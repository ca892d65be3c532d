"""What a run will look like, stage by stage, before it starts.

Each planned stage is really grown on a copy, with a forward and a backward pass to count its cost,
so a plan that cannot be carried out fails before the clock starts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

from progtrain.clock import Duration
from progtrain.curriculum.forecast import Timeline
from progtrain.data.sets import mixed
from progtrain.errors import ConfigError, NothingToGrowError, settings_of
from progtrain.flops import num_params, training_flops
from progtrain.growth.declared import pass_over
from progtrain.growth.freezing import check_names
from progtrain.growth.grow import Grown, Host, running
from progtrain.growth.life import lengths
from progtrain.growth.transaction import construct
from progtrain.hardware.engine import Engine
from progtrain.optimizers.group import check_groups
from progtrain.report.reporter import PlannedStage
from progtrain.run import Event, Phase, Run, Stage
from progtrain.setup import Setup
from progtrain.steps import learning_rate
from progtrain.transfer.teachers import taught_by

_MOST = 100  # stages that are worth planning


def plan(run: Run, setup: Setup) -> list[PlannedStage]:
    """The stages to come, if each comes in time; the first row is the network now.

    Raises `ConfigError` or `GrowthError` for a plan that cannot be carried out.
    """
    with settings_of("scheduler"):
        learning_rate(run, setup)
    ahead = replace(
        run, model=copy.deepcopy(run.model), events=list(run.events), memory=dict(run.memory)
    )
    rows = [PlannedStage("start" if not run.events else "now", run.params, run.flops, "")]
    stages, missing = list[Stage](), list[NothingToGrowError]()
    networks = [ahead]
    while len(rows) <= _MOST:
        with settings_of("growth"):
            stage = setup.growth.upcoming(ahead)
        if not isinstance(stage, Stage):
            break
        try:
            grown, ahead = _grown(ahead, setup, stage)
        except NothingToGrowError as error:
            pass_over(ahead, stage, error)
            missing.append(error)
            continue
        stages.append(stage)
        taught = taught_by([host.model for host in networks], setup.transfer.teaching)
        what = grown.edit.brief()
        networks.append(ahead)
        rows.append(PlannedStage(stage.name, ahead.params, ahead.flops, what, taught))
        _check_size(rows, setup.stop.max_params)
        _check_memory(rows, setup.engine)
    if missing and not stages and not run.events:
        raise missing[0]  # no stage can grow this network
    check_names(setup.train, networks)
    named = [[name for name, _ in ahead.model.named_parameters()] for ahead in networks]
    check_groups(getattr(setup.optimizer, "groups", {}), named)
    check_times(stages, run, setup)
    return rows


def _grown(ahead: Run, setup: Setup, stage: Stage) -> tuple[Grown, Run]:
    """The run as if the stage had grown."""
    seed = mixed(ahead.seed, len(ahead.events))
    with running(stage.name):
        grown = construct(Host.of(ahead), stage, setup, seed)
        flops = training_flops(grown.model, ahead.probe.x)
    params, now = num_params(grown.model), ahead.clock.now
    event = Event(
        len(ahead.events), stage.name, "", grown.edit, now, Phase.INTEGRATED, now, (), (),
        ahead.params, params, ahead.flops, flops, False, 0.0, None,
    )  # fmt: skip
    events = [*ahead.events, event]
    return grown, replace(ahead, model=grown.model, events=events, params=params, flops=flops)


def _check_size(rows: Sequence[PlannedStage], limit: int | None) -> None:
    before, row = rows[-2], rows[-1]
    if limit is not None and row.params > limit:
        raise ConfigError(
            f"Stage {row.name!r} would need {row.params:,} parameters; stop.max_params={limit:,}"
            f" ({before.name} has {before.params:,}). Raise it, or declare less growth."
        )


def _check_memory(rows: Sequence[PlannedStage], engine: Engine) -> None:
    """Refuse a stage whose growth cannot fit: the old network stands beside the new one."""
    before, row, free = rows[-2], rows[-1], engine.free_memory()
    need = row.memory + before.memory
    if free is not None and need - rows[0].memory > free:
        raise ConfigError(
            f"Stage {row.name!r} would need at least {need / 2**30:,.1f} GiB for weights, gradients"
            f" and optimizer state while it grows ({row.params:,} parameters beside"
            f" {before.params:,}); {free / 2**30:,.1f} GiB are free. Declare less growth, or train"
            " on another device."
        )


def check_times(stages: Sequence[Stage], run: Run, setup: Setup) -> None:
    """Refuse a stage beyond the end, or one whose life does not fit before the next one's time.

    Only times that convert into samples can be compared.
    """
    clock, timeline = run.clock, Timeline.of(run)
    end = timeline.after(0, clock.total)
    times = [timeline.after(0, stage.at) if stage.at else None for stage in stages]
    lasting = lengths(setup)
    for stage, time, following in zip(stages, times, [*times, end][1:], strict=True):
        if time is None or following is None or end is None:
            continue
        if time >= end:
            raise ConfigError(
                f"growth.stages.{stage.name}.at={stage.at} is not before the end of the run,"
                f" train.duration={clock.total}."
            )
        if time >= following:
            raise ConfigError(
                f"growth.stages.{stage.name}.at={stage.at} is not before the stage after it."
            )
        if lived(time, lasting.values(), timeline) > following * (1 + 1e-9):
            first, last = timeline.step(time) or 0, timeline.step(following) or 0
            words = ", ".join(f"{phase.value} {length}" for phase, length in lasting.items())
            raise ConfigError(
                f"The life of growth {stage.name!r} ({words}) does not fit into its stage, which"
                f" lasts {last - first:.0f} steps from {stage.at}. Shorten the warmup"
                " or growth.consolidation, or move the stages apart."
            )


def lived(time: float, lasting: Iterable[Duration], timeline: Timeline) -> float:
    """The sample at which a growth of `time` is integrated, as far as that can be known."""
    for length in lasting:
        after = timeline.after(time, length)
        time = time if after is None else after
    return time
