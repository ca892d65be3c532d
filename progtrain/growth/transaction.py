"""A growth as a transaction: everything is built and checked on a copy, then swapped in at once.

If shapes do not fit, numbers are not finite, or a promise to preserve the function is broken, the
run is as it was and the error says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from progtrain.contracts import Operator, Warmup
from progtrain.data.sets import mixed
from progtrain.errors import ConfigError, GrowthError
from progtrain.flops import check_flops, num_params, training_flops
from progtrain.growth.average import follow
from progtrain.growth.controls import Controls, new_modules
from progtrain.growth.edits import Edit
from progtrain.growth.gates import check_isolation
from progtrain.growth.grow import Grown, Host, carry_optimizer, grow, running, uncompiled
from progtrain.growth.heads import train_every_head
from progtrain.growth.identity import silence_newborn
from progtrain.growth.inheritance import inheritance, own_tensors
from progtrain.growth.life import first_phase, lengths, strength
from progtrain.growth.newborn import evaluate
from progtrain.growth.proof import Measured, culprits, judge, measure
from progtrain.growth.remedies import increment, smaller, stretched
from progtrain.growth.rollback import Before
from progtrain.growth.widen_space import WidenSpace
from progtrain.optimizers.group import OptimizerSet
from progtrain.run import Event, Phase, Run, Stage
from progtrain.setup import Setup
from progtrain.steps import learning_rate
from progtrain.transfer.preserve import check_preserves, silences


def check_pair(operator: Operator, warmup: Warmup) -> None:
    """Refuse a warmup that would undo what an operator did."""
    if operator.shares and (warmup.blends or warmup.zeroes):
        raise ConfigError(
            f"warmup ({type(warmup).__name__}) starts what is new silent, but"
            f" {type(operator).__name__} shares weights of the old units or blocks with it, so"
            " half the function would be missing. Use warmup=none with it (or lr or frozen_host"
            " with warmup.zero_output=false), or an operator that shares nothing: widen=random,"
            " widen=zero, deepen=interleave, deepen=random."
        )


def construct(host: Host, stage: Stage, setup: Setup, seed: int) -> Grown:
    """The grown network with the values it starts with."""
    operator, warmup = stage.operator, setup.warmup
    check_pair(operator, warmup)
    grown = grow(replace(host, stage=stage.name), operator, seed)
    if setup.train.heads == "all":
        train_every_head(grown.model)
    if setup.transfer.preserves:
        check_preserves(stage.name, operator, grown.edit)
    if warmup.zeroes or (setup.transfer.preserves and silences(operator, warmup)):
        silence_newborn(grown)
    if warmup.isolates:
        check_isolation(grown.model, grown.edit)
    return grown


def transact(run: Run, setup: Setup, stage: Stage, controls: Controls) -> Event:
    """Grow `run` by `stage`; on any error it is left as it was. `controls` are lifted."""
    begun = time.perf_counter()
    stage = replace(stage, operator=smaller(stage.operator, increment(run)))
    before = evaluate(uncompiled(run.model), run.probe.x)
    controls.lift()
    way_back = Before.of(run) if setup.undoes else None
    host, seed = Host.of(run), mixed(run.seed, len(run.events))
    with running(stage.name):
        grown = construct(host, stage, setup, seed)
        event = _event(run, setup, stage, grown)
        events = [*(e.moved(grown.edit) for e in run.events), event]
        try:
            proof = _prove(run, setup, grown, events, before, stage)
        except GrowthError as error:
            error.flops += event.cost + check_flops(host.model, grown.model, run.probe.x)
            raise
    if run.average is not None:
        run.average = follow(run.average, grown, stage.operator, seed)
    if way_back is not None:
        run.ways_back[event.index] = way_back
    setup.engine.place(grown.model)
    optimizer = _optimizer(run, setup, grown, events)
    run.model, run.optimizer, run.events = grown.model, optimizer, events
    run.params, run.flops = event.params_after, event.flops_after
    seconds = time.perf_counter() - begun
    run.events[-1] = replace(
        event,
        preservation_error=proof.error,
        output_change=proof.change,
        loss_before=proof.loss_before,
        loss_after=proof.loss_after,
        inherited=inheritance(own_tensors(host.model), own_tensors(grown.model), grown.edit),
        seconds=seconds,
    )
    return run.events[-1]


def _event(run: Run, setup: Setup, stage: Stage, grown: Grown) -> Event:
    now, edit = run.clock.now, grown.edit
    event = Event(
        index=len(run.events),
        stage=stage.name,
        cause=stage.cause,
        edit=edit,
        moment=now,
        phase=Phase.INTEGRATED,
        since=now,
        slabs=edit.slabs(),
        blocks=edit.blocks(),
        inserted=edit.inserted(),
        heads=edit.heads(),
        params_before=run.params,
        params_after=num_params(grown.model),
        flops_before=run.flops,
        flops_after=training_flops(grown.model, run.probe.x),
        promised=keeps(stage.operator, setup, edit),
        preservation_error=0.0,
        metric_before=run.last_metric,
        cost=stage.operator.flops(grown),
        shares=stage.operator.shares,
        consolidation=stage.consolidation,
        rate=learning_rate(run, setup),
        stretch=stretched(run),
    )
    event = replace(event, phase=first_phase(lengths(setup, event)))
    return replace(event, alpha=strength(event, setup, run.clock, now).alpha)


def keeps(operator: Operator, setup: Setup, edit: Edit) -> bool:
    """Whether operator, warmup or transfer promises that the function stays at the growth."""
    silent = (setup.warmup.preserves or setup.transfer.preserves) and not edit.answers
    return (operator.preserves or silent) and not edit.inexact


def _prove(
    run: Run,
    setup: Setup,
    grown: Grown,
    events: Sequence[Event],
    before: Tensor,
    stage: Stage,
) -> Measured:
    """Run the probe batch through the grown network; how far its output moved."""
    controls = Controls(grown.model, events, setup.warmup)
    try:
        after = evaluate(grown.model, grown.x)
    finally:
        controls.lift()
    measured = measure(before, after, run.probe.y)
    try:
        judge(measured, events[-1].promised, setup.proof, before, grown.edit)
    except GrowthError as error:
        named = culprits(grown, stage.operator, mixed(run.seed, len(run.events)))
        raise GrowthError(f"{error}{named}") from error
    return measured


def _optimizer(run: Run, setup: Setup, grown: Grown, events: Sequence[Event]) -> OptimizerSet:
    sliced = sliced_tensors([*run.edits, grown.edit])
    new = setup.optimizer.build(dict(grown.model.named_parameters()), sliced)
    carry_optimizer(run.optimizer, new, grown, sliced, setup.optimizer, setup.optimizer_state)
    new.divide(births(new.parameters, events))
    return new


def births(names: Iterable[str], events: Sequence[Event]) -> dict[str, int]:
    """The index of the living growth that each wholly new parameter came with."""
    return {
        name: event.index
        for event in events
        if event.alive
        for name in names
        if name.startswith(new_modules(event))
    }


def sliced_tensors(edits: Sequence[Edit]) -> frozenset[str]:
    """Tensors that hold entries of different ages after `edits`, under their names then."""
    names: set[str] = set()
    for edit in edits:
        for change in edit.changes:
            names = {change.rename(name) for name in names}
            names |= {p.tensor for p in change.parts} if isinstance(change, WidenSpace) else set()
    return frozenset(names)
