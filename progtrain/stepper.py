"""Takes optimizer steps and looks after the growths that are alive.

    step    alphas and rates of living growths, learning rate, one optimizer step, clock
            teachers whose time is over go
            living growths enter their next phase; one that did not pay is undone
            monitors look; what their remedies say is done

`Controls` are made from `Run` anew whenever the network or a growth's phase has changed.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from progtrain.account import RECOMPUTATION, STORING
from progtrain.anchors import anchor, go_back
from progtrain.boundary import fate, last_distillation, last_loss, roll_back
from progtrain.clock import Duration, Step
from progtrain.contracts import Strength
from progtrain.curriculum.sight import Sight
from progtrain.growth.controls import Controls
from progtrain.growth.freezing import frozen_now
from progtrain.growth.guard import guarded
from progtrain.growth.life import advance, strengths
from progtrain.monitors.finding import Occasion
from progtrain.nonfinite import Guard, finite_weights
from progtrain.recent import Recent
from progtrain.run import Event, Phase, Run
from progtrain.setup import Setup
from progtrain.sharding import as_whole, spread
from progtrain.steps import train_step
from progtrain.transfer.teachers import release
from progtrain.watch import Found, close_ways_back, remedied, watch


class Stepper:
    """A run's steps. `last` is the moment before the last one, `loss` its loss on the device."""

    def __init__(self, run: Run, setup: Setup) -> None:
        self.run, self.setup = run, setup
        self.last = run.clock.now
        self.loss = torch.tensor(last_loss(run))
        run.distilled = last_distillation(run)
        self.controls = self._made()
        self.guard = Guard(run, setup)
        self._sight = Sight(setup.engine.settings.activation_checkpointing)
        self._remember()
        if setup.nonfinite.policy == "rollback" and not run.anchors:
            self._anchor()

    def _remember(self) -> None:
        """Room for the losses and gradient norms that the monitors look at."""
        run, steps = self.run, self.setup.lookback
        known = run.recent or Recent.of(max(steps, 1), self.setup.engine.device)
        run.recent = known.resized(steps, run.clock.step) if steps else None

    def take(self, steps: int) -> None:
        """So many optimizer steps, or fewer where interrupted; nothing is decided or observed."""
        for _ in range(steps):
            if self.setup.interrupted():
                return
            self.look_ahead()
            self.step()
        self.settle()

    def look_ahead(self) -> None:
        """Set the coming step's view; its cost is counted on the network without controls."""
        if self._sight.look(self.run):
            self.controls.lift()
            self._sight.measure(self.run)
            self.controls = self._made()

    def step(self) -> None:
        """One optimizer step, and what follows from it for the growths that are alive."""
        run, setup = self.run, self.setup
        begun, graphs = time.perf_counter(), setup.engine.graphs
        flops, taught, tokens = run.step_flops, run.step_taught, run.step_tokens
        strong = strengths(run, setup, run.clock.after_step(run.batch_size, flops))
        with guarded(run, setup):
            loss = train_step(run, setup, self.controls, strong)
        self.guard.note(loss)
        self.loss = self._counted(loss)
        self.last = run.clock.now
        compiled = setup.engine.graphs != graphs
        seconds = setup.engine.beat(time.perf_counter() - begun)
        run.clock.tick(run.batch_size, flops, seconds, Step(taught, tokens, compiled))
        if self._sight.recomputed:
            run.clock.charge(RECOMPUTATION, run.batch_size * self._sight.recomputed)
        release(run, setup)
        self._advance(strong)
        # what a monitor sees must not hang on how often a run is stored
        self.watch(Occasion.BOUNDARY if self.crossed(setup.train.evaluate_every) else Occasion.STEP)
        self._answer()
        setup.reporter.stepped(run, self.loss)

    def _counted(self, loss: Tensor) -> Tensor:
        """The loss of the last step that was not withheld."""
        withheld = self.run.withheld
        if isinstance(withheld, bool):
            return self.loss if withheld else loss
        return torch.where(withheld > 0, self.loss.to(loss), loss)

    def _answer(self) -> None:
        """Go back where a step was not finite and that is the policy; keep what to go back to."""
        if self.guard.wanted:
            self.settle()
        policy = self.setup.nonfinite
        if policy.policy == "rollback" and self.crossed(policy.back):
            self.settle()
            self._anchor()

    def settle(self) -> None:
        """Let everything follow from the steps so far that the device had kept to itself."""
        self.guard.read()
        rollback = self.setup.nonfinite.policy == "rollback"
        if rollback and not self.guard.wanted and not finite_weights(self.run, self.setup.engine):
            self.guard.wanted = f"Weights are not finite at step {self.run.clock.step:,}."
        if self.guard.wanted:
            self._go_back()

    def observed(self) -> None:
        """An evaluation is over."""
        self.guard.observed()
        if self.guard.wanted:
            self._go_back()

    def _anchor(self) -> None:
        with self.run.spent.of(STORING):
            self.controls.lift()
            with as_whole(self.run, self.setup):
                anchor(self.run)
            self.renew()

    def _go_back(self) -> None:
        run, setup = self.run, self.setup
        self.controls.lift()
        for event in go_back(run, setup, self.guard.answered()):
            setup.reporter.advanced(run, event)
        spread(run, setup.engine, setup.optimizer)
        self.renew()

    def _advance(self, strong: dict[int, Strength]) -> None:
        """Note each living growth's alpha, and let those whose phase is over enter the next."""
        moved = advance(self.run, self.setup, strong)
        thaw = self.setup.train.thaw
        if moved or (thaw is not None and self.crossed(thaw)):
            self.renew()
        for event in moved:
            self.setup.reporter.advanced(self.run, event)
            self.judge(event)

    def judge(self, event: Event) -> None:
        """Undo a growth whose life is over and has not paid."""
        over = event.phase is Phase.INTEGRATED and event in self.run.events
        if over and (why := fate(self.run, self.setup, event)):
            self._undo(event, why)

    def watch(self, occasion: Occasion) -> None:
        """Let the monitors look, and do what their remedies say."""
        for found in watch(self.run, self.setup, occasion, self.last):
            self._remedy(found)
        close_ways_back(self.run, self.setup)

    def _remedy(self, found: Found) -> None:
        run, index = self.run, found.finding.event
        if found.monitor.remedy == "rollback" and index in run.ways_back:
            self._undo(run.events[index], f"{found.name}: {found.finding.told}")
        elif note := remedied(run, self.setup, found):
            self.renew()
            self.setup.reporter.noted(run, note)

    def _undo(self, event: Event, why: str) -> None:
        self.controls.lift()
        roll_back(self.run, self.setup, event, why)
        spread(self.run, self.setup.engine, self.setup.optimizer)
        self.renew()

    def renew(self) -> None:
        """Controls for the network and the growths of now."""
        self.controls.lift()
        self.controls = self._made()

    def _made(self) -> Controls:
        run, setup = self.run, self.setup
        controls = Controls(run.model, run.events, setup.warmup, frozen_now(run, setup.train))
        run.frozen = controls.frozen
        return controls

    def crossed(self, every: str) -> bool:
        return self.run.clock.crossed(self.last, Duration.parse(every, "every"))


def trained(run: Run, setup: Setup, steps: int) -> None:
    """Optimizer steps of a trial."""
    Stepper(run, setup).take(steps)
