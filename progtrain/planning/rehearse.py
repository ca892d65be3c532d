"""Real steps of one stage, on a copy: what they take in seconds and bytes.

    step 0      with the growth's life as it begins (blended, isolated); its memory is measured
    step 1, 3 … with the growth integrated; timed, the fastest counts
    step 2      its memory is measured; the guard against what does not train looks at it as well

The steps are those of a run: its data, precision, accumulation, average, teachers, curriculum.
Monitors do not look.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from progtrain.anchors import ANCHORS, anchor
from progtrain.data.sets import Split
from progtrain.evaluation import evaluate, evaluation_batch
from progtrain.growth.guard import guarded
from progtrain.growth.life import strengths
from progtrain.planning.memory import held, measured
from progtrain.planning.rows import Held
from progtrain.run import Phase, Run
from progtrain.setup import Setup
from progtrain.state import random_numbers, set_random_numbers
from progtrain.stepper import Stepper
from progtrain.steps import train_step


@dataclass(frozen=True)
class Steps:
    """What steps and evaluations of a stage take."""

    held: Held
    step_seconds: float
    step_memory: int
    evaluation_seconds: float  # of all of the validation split
    evaluation_memory: int


@contextmanager
def undisturbed(setup: Setup) -> Generator[None]:
    """What is global (random numbers, the scale of fp16) is as before afterwards."""
    scaler = setup.engine.scaler
    numbers, scale = random_numbers(setup.engine), copy.deepcopy(scaler.state_dict())
    try:
        yield
    finally:
        set_random_numbers(numbers, setup.engine)
        if scale:
            scaler.load_state_dict(scale)


def rehearsed(run: Run, setup: Setup, timed: int, first: bool = False) -> Steps:
    """Train and evaluate a little; weights and optimizer move on, clock and growths do not.

    `first`: nothing has been computed yet, and on CUDA libraries will take what they keep.
    """
    now, events = run.clock.now, list(run.events)
    if setup.nonfinite.policy == "rollback":
        run.anchors = []
        for _ in range(ANCHORS):
            anchor(run)
    stepper, device = Stepper(run, setup), setup.engine.device
    seconds, memory = list[float](), 0
    try:
        if first and device.type == "cuda":
            _step(stepper)
            run.clock.now = now
        for index in range(timed + 2):
            if index == 1:
                _integrate(run)
                stepper.renew()
            run.optimizer.zero_grad()
            if index in (0, 2):
                still = held(run, device).still
                with measured(device) as peak:
                    _step(stepper)
                memory = max(memory, still + peak.bytes)
            else:
                seconds.append(_timed(setup, lambda: _step(stepper)))
        looked, look_memory = _evaluated(run, setup)
    finally:
        stepper.controls.lift()
        run.clock.now, run.events[:] = now, events
    return Steps(held(run, device), min(seconds), memory, looked, look_memory)


def _step(stepper: Stepper) -> None:
    """What a step of a run does, but for its monitors."""
    run, setup = stepper.run, stepper.setup
    stepper.look_ahead()
    flops = run.step_flops
    strong = strengths(run, setup, run.clock.after_step(run.batch_size, flops))
    with guarded(run, setup):
        train_step(run, setup, stepper.controls, strong)
    run.clock.tick(run.batch_size, flops, 0.0)


def _integrate(run: Run) -> None:
    """As if every growth had come to the end of its life."""
    run.events[:] = [
        replace(event, phase=Phase.INTEGRATED, alpha=1.0) if event.alive else event
        for event in run.events
    ]


def _evaluated(run: Run, setup: Setup) -> tuple[float, int]:
    """Seconds of a whole evaluation, and its peak bytes, by a batch of it."""
    device, split = setup.engine.device, setup.batches.sets.validation
    part = first_batch(split, setup.num_classes)
    with measured(device) as peak:
        evaluate(run, setup, part, "val")
    once = _timed(setup, lambda: evaluate(run, setup, part, "val"))
    return once * len(split) / len(part), held(run, device).between + peak.bytes


def first_batch(split: Split, num_classes: int) -> Split:
    """What an evaluation begins with."""
    size = evaluation_batch(split, num_classes)
    return replace(split, x=split.x[:size], y=split.y[:size], source=None)


def _timed(setup: Setup, work: Callable[[], object]) -> float:
    settled(setup)
    begun = time.perf_counter()
    work()
    settled(setup)
    return time.perf_counter() - begun


def settled(setup: Setup) -> None:
    """Wait for the device."""
    if setup.engine.device.type == "cuda":
        torch.cuda.synchronize(setup.engine.device)
