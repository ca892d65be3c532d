"""What a run will look like, stage by stage, before it starts.

Each planned stage is really grown on a copy, with a forward and a backward pass to count its cost,
so a plan that cannot be carried out fails before the clock starts.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from progtrain.contracts import PlannedStage
from progtrain.data.sets import mixed
from progtrain.flops import num_params, training_flops
from progtrain.growth.grow import Host, running
from progtrain.growth.transaction import construct
from progtrain.run import Event, Phase, Run, Stage
from progtrain.setup import Setup

_MOST = 100  # stages that are worth planning


def plan(run: Run, setup: Setup) -> list[PlannedStage]:
    """The stages to come, if each comes in time; the first row is the network now."""
    ahead = replace(run, model=copy.deepcopy(run.model), events=list(run.events))
    rows = [PlannedStage("start" if not run.events else "now", run.params, run.flops, "")]
    while len(rows) <= _MOST:
        stage = setup.growth.upcoming(ahead)
        if not isinstance(stage, Stage):
            break
        seed = mixed(run.seed, len(ahead.events))
        with running(stage.name):
            grown = construct(Host(ahead.model, run.probe), stage, setup.warmup, seed)
            flops = training_flops(grown.model, run.probe.x)
        row = PlannedStage(stage.name, num_params(grown.model), flops, grown.edit.describe())
        rows.append(row)
        now = ahead.clock.now
        event = Event(
            len(ahead.events), stage.name, "", grown.edit, now, Phase.INTEGRATED, now, (), (),
            ahead.params, row.params, ahead.flops, row.flops, False, 0.0, None,
        )  # fmt: skip
        events = [*ahead.events, event]
        ahead = replace(ahead, model=grown.model, events=events, params=row.params, flops=row.flops)
    return rows
