"""What a run will look like, stage by stage, before it starts.

Each planned stage is really grown on a copy, with a forward and a backward pass to count its cost,
so a plan that cannot be carried out fails before the clock starts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from progtrain.data.sets import mixed
from progtrain.errors import ConfigError, NothingToGrowError, report, settings_of
from progtrain.flops import num_params, on_meta, training_flops
from progtrain.growth.declared import pass_over
from progtrain.growth.freezing import check_names
from progtrain.growth.grow import Grown, Host, running
from progtrain.growth.plan_checks import (
    mistimed,
    no_room,
    start_too_large,
    step_too_dear,
    too_large,
)
from progtrain.growth.transaction import check_pair, construct
from progtrain.optimizers.group import check_groups
from progtrain.report.reporter import PlannedStage
from progtrain.run import Event, Phase, Run, Stage
from progtrain.setup import Setup
from progtrain.steps import learning_rate
from progtrain.transfer.teachers import taught_by

_MOST = 100  # stages that are worth planning

Ahead = Callable[[Run, Setup, Stage], tuple[Grown, Run]]  # a copy, and the run that has it


def plan(run: Run, setup: Setup, ahead_by: Ahead | None = None) -> list[PlannedStage]:
    """The stages to come, if each comes in time; the first row is the network now.

    `ahead_by` grows a copy (default: with the values it would have). Raises `ConfigError` or
    `GrowthError` for a plan that cannot be carried out.
    """
    grown_by = ahead_by or with_values
    with settings_of("scheduler"):
        learning_rate(run, setup)
    ahead = replace(
        run, model=copy.deepcopy(run.model), events=list(run.events), memory=dict(run.memory)
    )
    rows = [PlannedStage("start" if not run.events else "now", run.params, run.flops, "")]
    stages, missing = list[Stage](), list[NothingToGrowError]()
    networks, problems = [ahead], list[str]()
    if not run.events:
        first = start_too_large(run.params, setup.stop.max_params)
        problems += [p for p in (first, step_too_dear(run.step_flops, setup.stop)) if p]
    while len(rows) <= _MOST:
        with settings_of("growth"):
            stage = setup.growth.upcoming(ahead)
        if not isinstance(stage, Stage):
            break
        try:
            grown, ahead = grown_by(ahead, setup, stage)
        except NothingToGrowError as error:
            pass_over(ahead, stage, error)
            missing.append(error)
            continue
        stages.append(stage)
        taught = taught_by([host.model for host in networks], setup.transfer.teaching)
        what = grown.edit.brief()
        networks.append(ahead)
        rows.append(PlannedStage(stage.name, ahead.params, ahead.flops, what, taught))
        found = too_large(rows, setup.stop.max_params), no_room(rows, setup.engine)
        problems += [problem for problem in found if problem]
        if found[1]:  # the next one would be grown all the same
            break
    if missing and not stages and not run.events:
        raise missing[0]  # no stage can grow this network
    check_names(setup.train, networks)
    named = [[name for name, _ in ahead.model.named_parameters()] for ahead in networks]
    check_groups(getattr(setup.optimizer, "groups", {}), named)
    problems += mistimed(stages, run, setup)
    if problems:
        raise ConfigError(report(problems))
    return rows


def with_values(ahead: Run, setup: Setup, stage: Stage) -> tuple[Grown, Run]:
    """The run as if the stage had grown."""
    seed = mixed(ahead.seed, len(ahead.events))
    with running(stage.name):
        grown = construct(Host.of(ahead), stage, setup, seed)
    return grown, _after(ahead, stage, grown)


def by_shape(ahead: Run, setup: Setup, stage: Stage) -> tuple[Grown, Run]:
    """The same of a run on the meta device: new entries get no values."""
    check_pair(stage.operator, setup.warmup)
    host = replace(Host.of(ahead), stage=stage.name)
    edit = stage.operator.propose(host).settled(host.model)
    model = copy.deepcopy(host.model)
    edit.apply(model, host.template)
    grown = Grown(on_meta(model), edit, host)
    return grown, _after(ahead, stage, grown)


def _after(ahead: Run, stage: Stage, grown: Grown) -> Run:
    with running(stage.name):
        flops = training_flops(grown.model, ahead.probe.x)
    params, now = num_params(grown.model), ahead.clock.now
    event = Event(
        len(ahead.events), stage.name, "", grown.edit, now, Phase.INTEGRATED, now, (), (),
        ahead.params, params, ahead.flops, flops, False, 0.0, None,
    )  # fmt: skip
    events = [*ahead.events, event]
    return replace(ahead, model=grown.model, events=events, params=params, flops=flops)
