"""The stage machine: one loop that trains and grows.

    until stopped:
        DECIDE   a limit is reached                      → STOP
                 the growth policy says a stage is due   → GROW
                 otherwise                               → STEP
        GROW     copy → edit → fill → check → swap       → DECIDE
        STEP     alphas and rates of living growths
                 learning rate, one optimizer step, clock
                 living growths enter their next phase
                 an evaluation or a checkpoint is due    → OBSERVE, else DECIDE
        OBSERVE  evaluate, report, save                  → DECIDE
        STOP     last evaluation, last checkpoint, test

Everything that changes is in `Run`; `Controls` are made from it anew whenever the network or a
growth's phase has changed. No algorithm is named here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum, auto
from math import isfinite

import torch

from progtrain.clock import Duration, Moment
from progtrain.contracts import Strength
from progtrain.errors import DivergedError, GrowthError
from progtrain.growth.controls import Controls
from progtrain.growth.life import advanced, lengths, strengths
from progtrain.growth.transaction import transact
from progtrain.limits import fruitless, reached
from progtrain.run import Observation, Run, Stage, StopReason
from progtrain.setup import Setup
from progtrain.steps import evaluate, train_step

_LOSS = "machine/loss"  # in `Run.memory`


class State(Enum):
    DECIDE = auto()
    GROW = auto()
    STEP = auto()
    OBSERVE = auto()
    STOP = auto()


class Machine:
    """Runs a `Run` to its end."""

    def __init__(self, run: Run, setup: Setup) -> None:
        self.run, self.setup = run, setup
        self._stage: Stage | None = None  # what GROW is to do
        self._last = run.clock.now  # before the last step
        loss = run.memory.get(_LOSS)
        self._loss = torch.tensor(loss if isinstance(loss, float) else 0.0)  # of the last step
        self._lasting = lengths(setup.warmup, setup.growth)
        self._controls = Controls(run.model, run.events, setup.warmup)

    def go(self) -> StopReason:
        """Train and grow until a reason to stop; the reason."""
        self.run.model.train()
        state = State.DECIDE
        while state is not State.STOP:
            match state:
                case State.DECIDE:
                    state = self._decide()
                case State.GROW:
                    state = self._grow()
                case State.STEP:
                    state = self._step()
                case State.OBSERVE:
                    state = self._observe()
        return self._stop()

    def _decide(self) -> State:
        run = self.run
        run.stopped = (
            StopReason.INTERRUPTED if self.setup.interrupted() else reached(run, self.setup)
        )
        if run.stopped:
            return State.STOP
        due = None if run.grown_out else self.setup.growth.next(run)
        if isinstance(due, StopReason):
            run.grown_out = due
            self.setup.reporter.noted(run, f"Growth is over: {due.value}")
        elif due is not None and fruitless(run, self.setup.stop.patience):
            run.stopped = StopReason.NO_IMPROVEMENT
            return State.STOP
        elif due is not None:
            self._stage = due
            return State.GROW
        return State.STEP

    def _grow(self) -> State:
        assert self._stage is not None
        run, setup = self.run, self.setup
        before = evaluate(run, setup, setup.batches.sets.validation, "val")
        try:
            event = transact(run, setup, self._stage, self._controls)
        except GrowthError:
            self._save()  # the run is as it was
            raise
        self._controls = Controls(run.model, run.events, setup.warmup)
        after = evaluate(run, setup, setup.batches.sets.validation, "val")
        measured = (before.get(run.metric), after.get(run.metric))
        event = replace(event, metric_before=measured[0], metric_after=measured[1])
        run.events[-1] = event
        run.clock.charge(seconds=event.seconds)
        setup.reporter.grew(run, event)
        return State.DECIDE

    def _step(self) -> State:
        run, setup = self.run, self.setup
        begun = time.perf_counter()
        flops = run.flops * run.batch_size
        strong = strengths(run, setup.warmup, run.clock.after_step(run.batch_size, flops))
        self._loss = train_step(run, setup, self._controls, strong)
        self._last = run.clock.now
        run.clock.tick(run.batch_size, flops, time.perf_counter() - begun)
        self._advance(strong)
        setup.reporter.stepped(run, self._loss)
        due = self._crossed(setup.train.evaluate_every) or self._crossed(setup.checkpoint.every)
        return State.OBSERVE if due else State.DECIDE

    def _advance(self, strong: dict[int, Strength]) -> None:
        """Note each living growth's alpha, and let those whose phase is over enter the next."""
        run, before = self.run, self.run.living
        for event in before:
            now = replace(event, alpha=strong[event.index].alpha)
            run.events[event.index] = advanced(now, self._lasting, run.clock)
        moved = [run.events[e.index] for e in before if run.events[e.index].phase is not e.phase]
        if moved:  # every alpha is noted by now, so new gates stand where the old ones did
            self._controls.lift()
            self._controls = Controls(run.model, run.events, self.setup.warmup)
        for event in moved:
            self.setup.reporter.advanced(run, event)

    def _crossed(self, every: str) -> bool:
        """Whether the last step went over a multiple of a length."""
        length, clock = Duration.parse(every, "every"), self.run.clock

        def whole(moment: Moment) -> int:
            return int(clock.count(moment, length.unit) / length.value + 1e-9)

        return whole(clock.now) > whole(self._last)

    def _observe(self) -> State:
        if self._crossed(self.setup.train.evaluate_every):
            self._look()
        if self._crossed(self.setup.checkpoint.every):
            self._save()
        return State.DECIDE

    def _look(self) -> None:
        run, setup = self.run, self.setup
        metrics = evaluate(run, setup, setup.batches.sets.validation, "val")
        metrics["train/loss"] = float(self._loss)
        observation = Observation(run.clock.now, run.clock.epoch, metrics)
        run.history.append(observation)
        setup.reporter.observed(run, observation)
        self._check(metrics.values())

    def _save(self) -> None:
        """Store the run and the loss that a resumed run may have to report; nothing diverged."""
        run, loss = self.run, float(self._loss)
        self._check([loss, *(float(p.detach().sum()) for p in run.model.parameters())])
        run.memory[_LOSS] = loss
        self.setup.save(run)

    def _check(self, values: Iterable[float]) -> None:
        if not all(map(isfinite, values)):
            raise DivergedError(
                f"Loss or weights are not finite at step {self.run.clock.step}. The last checkpoint"
                " is older and whole. Try a smaller optimizer.lr or train.clip=1."
            )

    def _stop(self) -> StopReason:
        run, setup = self.run, self.setup
        assert run.stopped is not None
        seen = run.history[-1].moment.step if run.history else -1
        if run.stopped is not StopReason.INTERRUPTED and seen < run.clock.step:
            self._look()
        test = setup.batches.sets.test
        if test is not None and run.stopped is not StopReason.INTERRUPTED:
            run.test = evaluate(run, setup, test, "test")
        self._save()
        setup.reporter.stopped(run)
        return run.stopped
