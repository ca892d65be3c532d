"""A growth as a transaction: everything is built and checked on a copy, then swapped in at once.

If shapes do not fit, numbers are not finite, or a promise to preserve the function is broken, the
run is as it was and the error says why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from progtrain.contracts import Operator, Warmup
from progtrain.data.sets import mixed
from progtrain.errors import ConfigError, GrowthError
from progtrain.flops import num_params, training_flops
from progtrain.growth.controls import Controls, check_gates
from progtrain.growth.edits import Edit, WidenSpace
from progtrain.growth.grow import Grown, Host, carry_optimizer, grow, running, uncompiled
from progtrain.growth.identity import silence_newborn
from progtrain.growth.life import first_phase, lengths, strength
from progtrain.growth.newborn import evaluate
from progtrain.run import Event, Run, Stage
from progtrain.setup import Setup

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # relative to the largest output


def check_pair(operator: Operator, warmup: Warmup) -> None:
    """Refuse a warmup that would undo what an operator did."""
    if operator.shares and (warmup.blends or warmup.zeroes):
        raise ConfigError(
            f"warmup ({type(warmup).__name__}) starts new units silent, but"
            f" {type(operator).__name__} has shared the old units' outgoing weights with them, so"
            " half the function would be missing. Use warmup=none with it (or lr or frozen_host"
            " with warmup.zero_output=false), or widen=random or widen=zero."
        )


def construct(host: Host, stage: Stage, warmup: Warmup, seed: int) -> Grown:
    """The grown network with the values it starts with."""
    check_pair(stage.operator, warmup)
    grown = grow(host, stage.operator, seed)
    if warmup.zeroes:
        silence_newborn(grown)
    if warmup.blends:
        check_gates(grown.model, grown.edit.slabs())
    return grown


def transact(run: Run, setup: Setup, stage: Stage, controls: Controls) -> Event:
    """Grow `run` by `stage`; on any error it is left as it was. `controls` are lifted."""
    begun = time.perf_counter()
    with setup.engine.exact():
        before = evaluate(uncompiled(run.model), run.probe.x)
    controls.lift()
    host = Host.of(run)
    with running(stage.name):
        grown = construct(host, stage, setup.warmup, mixed(run.seed, len(run.events)))
        event = _event(run, setup, stage, grown)
        events = [*(e.moved(grown.edit) for e in run.events), event]
        error = _check(run, setup, grown, events, before)
    setup.engine.place(grown.model)
    optimizer = _optimizer(run, setup, grown)
    run.model, run.optimizer, run.events = grown.model, optimizer, events
    run.params, run.flops = event.params_after, event.flops_after
    seconds = time.perf_counter() - begun
    run.events[-1] = replace(event, preservation_error=error, seconds=seconds)
    return run.events[-1]


def _event(run: Run, setup: Setup, stage: Stage, grown: Grown) -> Event:
    now, edit = run.clock.now, grown.edit
    phase = first_phase(lengths(setup.warmup, setup.growth))
    event = Event(
        index=len(run.events),
        stage=stage.name,
        cause=stage.cause,
        edit=edit,
        moment=now,
        phase=phase,
        since=now,
        slabs=edit.slabs(),
        blocks=edit.blocks(),
        params_before=run.params,
        params_after=num_params(grown.model),
        flops_before=run.flops,
        flops_after=training_flops(grown.model, run.probe.x),
        promised=(stage.operator.preserves or setup.warmup.preserves) and not edit.inexact,
        preservation_error=0.0,
        metric_before=run.last_metric,
    )
    return replace(event, alpha=strength(event, setup.warmup, run.clock, now).alpha)


def _check(run: Run, setup: Setup, grown: Grown, events: Sequence[Event], before: Tensor) -> float:
    """Run the probe batch through the grown network; how far its output moved, relatively."""
    controls = Controls(grown.model, events, setup.warmup)
    try:
        with setup.engine.exact():
            after = evaluate(grown.model, grown.x)
    finally:
        controls.lift()
    if not bool(torch.isfinite(after).all()):
        raise GrowthError(f"Growth by {grown.edit.describe()} gives numbers that are not finite.")
    error = float((after - before).abs().max() / before.abs().max().clamp_min(1e-12))
    tolerance = TOLERANCE.get(before.dtype, 1e-2)
    if events[-1].promised and error > tolerance:
        raise GrowthError(
            f"Growth by {grown.edit.describe()} was to preserve the function and changed it by"
            f" {error:.2g} of its size (allowed: {tolerance:g}). The network is as it was."
        )
    return error


def _optimizer(run: Run, setup: Setup, grown: Grown):
    sliced = sliced_tensors([*run.edits, grown.edit])
    new = setup.optimizer.build(dict(grown.model.named_parameters()), sliced)
    carry_optimizer(run.optimizer, new, grown.edit, sliced, setup.optimizer)
    return new


def sliced_tensors(edits: Sequence[Edit]) -> frozenset[str]:
    """Tensors that hold entries of different ages after `edits`, under their names then."""
    names: set[str] = set()
    for edit in edits:
        for change in edit.changes:
            names = {change.rename(name) for name in names}
            names |= {p.tensor for p in change.parts} if isinstance(change, WidenSpace) else set()
    return frozenset(names)
