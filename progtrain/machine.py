"""The stage machine: one loop that trains and grows.

    until stopped:
        DECIDE   what of the data the coming step sees
                 a limit is reached                      → STOP
                 the growth policy says a stage is due   → GROW
                 otherwise                               → STEP
        GROW     try the candidates, where there are any
                 copy → edit → fill → check → swap       → DECIDE
        STEP     alphas and rates of living growths
                 learning rate, one optimizer step, clock
                 living growths enter their next phase; one that did not pay is undone
                 monitors look; what they find is told, and their remedies follow
                 an evaluation or a checkpoint is due    → OBSERVE, else DECIDE
        OBSERVE  evaluate, report, monitors look, save   → DECIDE
        STOP     last evaluation, last checkpoint, test

Everything that changes is in `Run`; `Controls` are made from it anew whenever the network or a
growth's phase has changed. No algorithm is named here.
"""

from __future__ import annotations

import time
from enum import Enum, auto

import torch

from progtrain.boundary import (
    close,
    fate,
    grow,
    last_distillation,
    last_loss,
    look,
    roll_back,
    save,
)
from progtrain.clock import Duration
from progtrain.contracts import Strength
from progtrain.curriculum.sight import Sight
from progtrain.errors import GrowthError, NothingToGrowError
from progtrain.growth.controls import Controls
from progtrain.growth.declared import pass_over
from progtrain.growth.freezing import frozen_now
from progtrain.growth.guard import guarded
from progtrain.growth.life import advance, strengths
from progtrain.growth.remedies import answered, asked
from progtrain.growth.trial import tried
from progtrain.limits import fruitless, reached
from progtrain.monitors.finding import Occasion
from progtrain.recent import Recent
from progtrain.run import Event, Phase, Run, Stage, StopReason
from progtrain.setup import Setup
from progtrain.steps import train_step
from progtrain.transfer.teachers import release
from progtrain.watch import Found, close_ways_back, remedied, watch


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
        self._loss = torch.tensor(last_loss(run))  # of the last step, on the device
        run.distilled = last_distillation(run)
        self._controls = self._made()
        self._sight = Sight()
        self._remember()

    def _remember(self) -> None:
        """Room for the losses and gradient norms that the monitors look at."""
        run, steps = self.run, self.setup.lookback
        known = run.recent or Recent.of(max(steps, 1), self.setup.engine.device)
        run.recent = known.resized(steps, run.clock.step) if steps else None

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

    def take(self, steps: int) -> None:
        """So many optimizer steps, or fewer where interrupted; nothing is decided or observed."""
        for _ in range(steps):
            if self.setup.interrupted():
                return
            self._look_ahead()
            self._step()

    def _decide(self) -> State:
        run = self.run
        self._look_ahead()
        run.stopped = (
            StopReason.INTERRUPTED if self.setup.interrupted() else reached(run, self.setup)
        )
        if run.stopped:
            return State.STOP
        due = None if run.grown_out else self._due()
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

    def _due(self) -> Stage | StopReason | None:
        growth = self.setup.growth
        return growth.next(self.run) or asked(self.run, growth)

    def _look_ahead(self) -> None:
        """Set the coming step's view; its cost is counted on the network without controls."""
        if self._sight.look(self.run):
            self._controls.lift()
            self._sight.measure(self.run)
            self._controls = self._made()

    def _grow(self) -> State:
        assert self._stage is not None
        run, setup = self.run, self.setup
        grown: Event | None = None
        try:
            stage = self._stage if self._stage.trial is None else self._try(self._stage)
            if stage is None:
                return self._declined()
            grown = grow(run, setup, stage, self._controls)
        except NothingToGrowError as error:
            pass_over(run, self._stage, error)
            setup.reporter.noted(run, f"Stage {self._stage.name} is passed over: {error}")
        except GrowthError:
            save(run, setup, self._loss)  # the run is as it was
            raise
        answered(run)
        self._renew()
        if grown is not None:
            self._judge(grown)
        close_ways_back(run, setup)
        return State.DECIDE

    def _declined(self) -> State:
        """A trial has found that not growing is better, or was interrupted."""
        if not self.setup.interrupted():
            answered(self.run)
        return State.DECIDE

    def _try(self, stage: Stage) -> Stage | None:
        """The candidate that a trial finds best, or None; the run is as it was."""
        self._controls.lift()
        found = tried(self.run, self.setup, stage, trained)
        self._renew()
        return found

    def _step(self) -> State:
        run, setup = self.run, self.setup
        begun = time.perf_counter()
        flops = run.step_flops
        strong = strengths(run, setup, run.clock.after_step(run.batch_size, flops))
        with guarded(run, setup):
            self._loss = train_step(run, setup, self._controls, strong)
        self._last = run.clock.now
        run.clock.tick(run.batch_size, flops, time.perf_counter() - begun)
        release(run, setup)
        self._advance(strong)
        # what a monitor sees must not hang on how often a run is stored
        self._watch(
            Occasion.BOUNDARY if self._crossed(setup.train.evaluate_every) else Occasion.STEP
        )
        setup.reporter.stepped(run, self._loss)
        due = self._crossed(setup.train.evaluate_every) or self._crossed(setup.checkpoint.every)
        return State.OBSERVE if due else State.DECIDE

    def _advance(self, strong: dict[int, Strength]) -> None:
        """Note each living growth's alpha, and let those whose phase is over enter the next."""
        moved = advance(self.run, self.setup, strong)
        thaw = self.setup.train.thaw
        if moved or (thaw is not None and self._crossed(thaw)):
            self._renew()
        for event in moved:
            self.setup.reporter.advanced(self.run, event)
            self._judge(event)

    def _judge(self, event: Event) -> None:
        """Undo a growth whose life is over and has not paid."""
        over = event.phase is Phase.INTEGRATED and event in self.run.events
        if over and (why := fate(self.run, self.setup, event)):
            self._undo(event, why)

    def _watch(self, occasion: Occasion) -> None:
        """Let the monitors look, and do what their remedies say."""
        for found in watch(self.run, self.setup, occasion, self._last):
            self._remedy(found)
        close_ways_back(self.run, self.setup)

    def _remedy(self, found: Found) -> None:
        run, index = self.run, found.finding.event
        if found.monitor.remedy == "rollback" and index in run.ways_back:
            self._undo(run.events[index], f"{found.name}: {found.finding.told}")
        elif note := remedied(run, self.setup, found):
            self._renew()
            self.setup.reporter.noted(run, note)

    def _undo(self, event: Event, why: str) -> None:
        self._controls.lift()
        roll_back(self.run, self.setup, event, why)
        self._renew()

    def _renew(self) -> None:
        """Controls for the network and the growths of now."""
        self._controls.lift()
        self._controls = self._made()

    def _made(self) -> Controls:
        run, setup = self.run, self.setup
        return Controls(run.model, run.events, setup.warmup, frozen_now(run, setup.train))

    def _crossed(self, every: str) -> bool:
        return self.run.clock.crossed(self._last, Duration.parse(every, "every"))

    def _observe(self) -> State:
        if self._crossed(self.setup.train.evaluate_every):
            look(self.run, self.setup, self._loss)
            self._watch(Occasion.OBSERVED)
        if self._crossed(self.setup.checkpoint.every):
            save(self.run, self.setup, self._loss)
        return State.DECIDE

    def _stop(self) -> StopReason:
        assert self.run.stopped is not None
        close(self.run, self.setup, self._loss)
        return self.run.stopped


def trained(run: Run, setup: Setup, steps: int) -> None:
    """Optimizer steps of a trial."""
    Machine(run, setup).take(steps)
