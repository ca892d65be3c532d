"""What happens at a boundary: a look at the network, a growth, a checkpoint, the end of a run."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import isfinite

import torch
from torch import Tensor

from progtrain.account import EVALUATION, GROWTH, STORING
from progtrain.best import rank
from progtrain.curriculum.sight import look_cost
from progtrain.data.sets import Split
from progtrain.errors import DivergedError, GrowthError, NothingToGrowError
from progtrain.evaluation import evaluate
from progtrain.flops import check_flops
from progtrain.growth.controls import Controls
from progtrain.growth.gates import blends
from progtrain.growth.grow import uncompiled
from progtrain.growth.past import recovered
from progtrain.growth.payoff import unpaid
from progtrain.growth.rollback import undo
from progtrain.growth.together import together
from progtrain.growth.transaction import transact
from progtrain.hardware.engine import Engine
from progtrain.hardware.shards import whole
from progtrain.memory import room_to_grow
from progtrain.monitors.measurer import measured, remember
from progtrain.nonfinite import refuse
from progtrain.run import Event, Observation, Run, Stage, StopReason
from progtrain.setup import Setup
from progtrain.sharding import as_whole
from progtrain.transfer.teachers import described, forget, teach

_LOSS, _DISTILLED = "boundary/loss", "boundary/distillation"  # in `Run.memory`


def last_loss(run: Run) -> float:
    """The loss of the last step as a checkpoint has kept it; 0 before the first."""
    loss = run.memory.get(_LOSS)
    return loss if isinstance(loss, float) else 0.0


def last_distillation(run: Run) -> Tensor | None:
    """The distillation loss of the last step as a checkpoint has kept it."""
    loss = run.memory.get(_DISTILLED)
    return torch.tensor(loss, dtype=torch.float64) if isinstance(loss, float) else None


def look(run: Run, setup: Setup, loss: Tensor) -> None:
    """Evaluate, remember, report; raises `DivergedError`."""
    run.spent.end(run.clock.now)
    with run.spent.of(EVALUATION):
        metrics = evaluated(run, setup, setup.batches.sets.validation, "val")
    metrics["train/loss"] = float(loss)
    if run.distilled is not None:
        metrics["train/distillation"] = float(run.distilled)
    observation = Observation(run.clock.now, run.clock.epoch, metrics)
    run.history.append(observation)
    numbers = measured(run, setup)
    run.spent.note(numbers)
    # of wall-clock time, so it is reported and no part of the run
    setup.reporter.observed(run, replace(observation, metrics={**metrics, **numbers}))
    _recover(run, setup)
    refuse(run, setup, metrics)
    run.optimizer.settle(partial(_largest, setup.engine))


def _largest(engine: Engine, numbers: Tensor) -> Tensor:
    """Over all processes that hold shards."""
    return numbers if engine.shards is None else engine.group.reduced(numbers, "max")


def evaluated(run: Run, setup: Setup, split: Split, prefix: str) -> dict[str, float]:
    """`evaluate`, counted in the run's account and not charged."""
    begun = time.perf_counter()
    found = evaluate(run, setup, split, prefix)
    flops = run.evaluation_flops * len(split)
    run.clock.charge(EVALUATION, flops, setup.engine.seconds_since(begun))
    return found


def grow(run: Run, setup: Setup, stage: Stage, controls: Controls) -> Event:
    """Grow, with the metric before and after; raises `GrowthError`, and the run is as it was.

    `controls` are lifted. Where the network lies in shards, it is whole for no longer than needed.
    """
    then = run.clock.account
    before = evaluated(run, setup, setup.batches.sets.validation, "val").get(run.metric)
    controls.lift()
    try:
        with as_whole(run, setup):
            host, events = run.model, run.events
            blending = Controls(host, events, setup.warmup)
            event = together(run, setup, partial(_transacted, run, setup, stage, blending))
            check = check_flops(uncompiled(host), uncompiled(run.model), run.probe.x)
    except NothingToGrowError:  # the run goes on
        raise
    except GrowthError as error:
        error.flops += run.evaluation_flops * run.evaluated
        run.clock.account = then
        raise
    look_cost(run)
    running = Controls(run.model, run.events, setup.warmup)
    after = evaluated(run, setup, setup.batches.sets.validation, "val").get(run.metric)
    running.lift()
    run.clock.charge(GROWTH, event.cost + check + stage.probed, event.seconds)
    event = replace(event, metric_before=before, metric_after=after, since=run.clock.now)
    run.events[-1] = event
    setup.reporter.grew(run, event)
    if setup.warmup.blends and not blends(event.edit):
        text = f"Stage {event.stage} has nothing that a ramp could blend in: it counts at once"
        setup.reporter.noted(run, text)
    teacher = teach(run, setup, host, events)
    if teacher is not None:
        setup.reporter.noted(run, described(teacher))
    return event


def _transacted(run: Run, setup: Setup, stage: Stage, controls: Controls) -> Event:
    with room_to_grow(stage.name, setup.engine):
        return transact(run, setup, stage, controls)


def _recover(run: Run, setup: Setup) -> None:
    """Note the growths whose metric is back where it was before them.

    Asked of observations only: that a growth keeps the function says nothing of the steps after it.
    """
    share = setup.train.recovery
    for event in run.grown:
        if event.recovered is None and recovered(run, event, run.last_metric, share):
            run.events[event.index] = replace(event, recovered=run.clock.now)
            steps = run.clock.step - event.moment.step
            text = f"growth {event.index + 1} {event.stage} has recovered after {steps:,} steps"
            setup.reporter.found(run, "recovery", text, run.events[event.index])


def fate(run: Run, setup: Setup, event: Event) -> str | None:
    """Why a growth whose life is over is to be undone; None where it has paid."""
    # one that has been kept may live again (rollback.py), and then has no way back
    asked = setup.growth.keep_if is not None and event.index in run.ways_back
    return unpaid(run, setup, event) if asked else None


def roll_back(run: Run, setup: Setup, event: Event, why: str) -> None:
    """Undo a growth, and report it; controls are lifted."""
    undone = undo(run, event, why)
    forget(run, event.index)
    if run.recent is not None:
        run.recent.forget(event.moment.step, run.clock.step)
    run.model.train()
    for each in undone:
        setup.reporter.advanced(run, each)


def save(run: Run, setup: Setup, loss: Tensor) -> None:
    """Store the run; nothing diverged."""
    _note_losses(run, loss)
    remember(run, setup)
    with _storing(run, setup):
        setup.save(run)


def save_best(run: Run, setup: Setup, loss: Tensor) -> None:
    """Store the run under a name of its own where its last evaluation is among the best."""
    if not setup.checkpoint.best:
        return
    _note_losses(run, loss)
    name = rank(run, setup.checkpoint.best)
    if name is not None:
        remember(run, setup)
        with _storing(run, setup):
            setup.save_best(run, name)


@contextmanager
def _storing(run: Run, setup: Setup) -> Generator[None]:
    """Seconds of a checkpoint; the one that is being stored cannot know its own."""
    begun = time.perf_counter()
    with run.spent.of(STORING):
        yield
    run.clock.charge(STORING, seconds=setup.engine.seconds_since(begun))


def _note_losses(run: Run, loss: Tensor) -> None:
    """Note the loss that a resumed run may have to report; raises `DivergedError`."""
    value = float(loss)
    _refuse_divergence(
        run, [value, *(float(whole(p.detach().sum())) for p in run.optimizer.parameters.values())]
    )
    run.memory[_LOSS] = value
    run.memory.pop(_DISTILLED, None)
    if run.distilled is not None:
        run.memory[_DISTILLED] = float(run.distilled)


def close(run: Run, setup: Setup, loss: Tensor) -> None:
    """Evaluate where the last step has not been, and the test split; store, report."""
    seen = run.history[-1].moment.step if run.history else -1
    if run.stopped is not StopReason.INTERRUPTED:
        if seen < run.clock.step:
            look(run, setup, loss)
            save_best(run, setup, loss)
        test = setup.batches.sets.test
        run.test = evaluated(run, setup, test, "test") if test is not None else None
    save(run, setup, loss)
    setup.reporter.stopped(run)


def _refuse_divergence(run: Run, values: Iterable[float]) -> None:
    if not all(map(isfinite, values)):
        raise DivergedError(
            f"Loss or weights are not finite at step {run.clock.step}. The last checkpoint is older"
            " and whole. Try a smaller optimizer.lr or train.clip=1."
        )
