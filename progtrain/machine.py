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

Everything that changes is in `Run`. No algorithm is named here; what a step does stands in
`stepper.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from progtrain.account import GROWTH
from progtrain.boundary import close, grow, look, save, save_best
from progtrain.errors import GrowthError, NothingToGrowError
from progtrain.growth.declared import pass_over
from progtrain.growth.remedies import answered, asked
from progtrain.growth.trial import tried
from progtrain.hardware.shards import InShardsError
from progtrain.limits import fruitless, reached
from progtrain.monitors.finding import Occasion
from progtrain.run import Event, Run, Stage, StopReason
from progtrain.setup import Setup
from progtrain.sharding import as_whole
from progtrain.stepper import Stepper, trained
from progtrain.watch import close_ways_back


class Wish(Enum):
    """What a policy asks for before it can say what is due."""

    LOOK = "to look at the whole network"


Due = Stage | StopReason | Wish | None


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
        self.stepper = Stepper(run, setup)
        self._stage: Stage | None = None  # what GROW is to do

    def go(self) -> StopReason:
        """Train and grow until a reason to stop; the reason."""
        for _ in self.moves():
            pass
        return self.stop()

    def moves(self) -> Iterator[State]:
        """Train and grow move by move: each is named, and made when the next one is asked for."""
        self.run.model.train()
        self.run.spent.begin(self.run.clock.now)
        state = State.DECIDE
        while state is not State.STOP:
            yield state
            match state:
                case State.DECIDE:
                    state = self._decide()
                case State.GROW:
                    state = self._grow()
                case State.STEP:
                    state = self._step()
                case State.OBSERVE:
                    state = self._observe()

    def _decide(self) -> State:
        run = self.run
        self.stepper.look_ahead()
        run.stopped, due = self._agreed(*self._wishes())
        if run.stopped:
            return State.STOP
        if due is Wish.LOOK:
            due = self._looked()
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

    def _wishes(self) -> tuple[StopReason | None, Due]:
        """Why to stop, or what to grow, or why growth is over."""
        stop = StopReason.INTERRUPTED if self.setup.interrupted() else reached(self.run, self.setup)
        return stop, None if stop or self.run.grown_out else self._due()

    def _agreed(self, stop: StopReason | None, due: Due) -> tuple[StopReason | None, Due]:
        """What all processes do: what rank 0 wants, whatever the others have come to."""
        group, run = self.setup.engine.group, self.run
        if not group.anyone(stop is not None or due is not None):
            return stop, due
        wishes = group.gathered((stop, due.name if due is not None else None))
        if any(each != wishes[0] for each in wishes):
            told = "; ".join(f"{rank}: {_told(*each)}" for rank, each in enumerate(wishes))
            self.setup.reporter.noted(run, f"processes disagreed, and process 0 decides ({told})")
        (stop, due), run.memory = group.of_first(((stop, due), run.memory))
        return stop, due

    def _due(self) -> Due:
        growth = self.setup.growth
        try:
            return growth.next(self.run) or asked(self.run, growth)
        except InShardsError:
            return Wish.LOOK

    def _looked(self) -> Stage | StopReason | None:
        """What is due, asked once more beside the whole network."""
        self.stepper.controls.lift()
        with as_whole(self.run, self.setup):
            _, due = self._agreed(None, self._due())
        self.stepper.renew()
        assert not isinstance(due, Wish)
        return due

    def _grow(self) -> State:
        self.stepper.settle()
        with self.run.spent.of(GROWTH):
            return self._grow_stage()

    def _grow_stage(self) -> State:
        assert self._stage is not None
        run, setup = self.run, self.setup
        grown: Event | None = None
        try:
            stage = self._stage if self._stage.trial is None else self._try(self._stage)
            if stage is None:
                return self._declined()
            grown = grow(run, setup, stage, self.stepper.controls)
        except NothingToGrowError as error:
            pass_over(run, self._stage, error)
            setup.reporter.noted(run, f"Stage {self._stage.name} is passed over: {error}")
        except GrowthError:
            save(run, setup, self.stepper.loss)  # the run is as it was
            raise
        answered(run)
        self.stepper.renew()
        if grown is not None:
            self.stepper.judge(grown)
        close_ways_back(run, setup)
        return State.DECIDE

    def _declined(self) -> State:
        """A trial has found that not growing is better, or was interrupted."""
        if not self.setup.interrupted():
            answered(self.run)
        return State.DECIDE

    def _try(self, stage: Stage) -> Stage | None:
        """The candidate that a trial finds best, or None; the run is as it was."""
        self.stepper.controls.lift()
        with as_whole(self.run, self.setup, self.setup.engine.device):  # it trains copies there
            found = tried(self.run, self.setup, stage, trained)
        self.stepper.renew()
        return found

    def _step(self) -> State:
        self.stepper.step()
        lengths = (self.setup.train.evaluate_every, self.setup.checkpoint.every)
        return State.OBSERVE if any(map(self.stepper.crossed, lengths)) else State.DECIDE

    def _observe(self) -> State:
        self.stepper.settle()
        if self.stepper.crossed(self.setup.train.evaluate_every):
            look(self.run, self.setup, self.stepper.loss)
            measured = self.run.model
            self.stepper.observed()
            self.stepper.watch(Occasion.OBSERVED)
            if self.run.model is measured:  # else what has been measured is undone
                save_best(self.run, self.setup, self.stepper.loss)
        if self.stepper.crossed(self.setup.checkpoint.every):
            save(self.run, self.setup, self.stepper.loss)
        return State.DECIDE

    def stop(self, why: StopReason | None = None) -> StopReason:
        """End the run, here and now where a reason is given; the reason."""
        self.run.stopped = why or self.run.stopped
        assert self.run.stopped is not None
        self.stepper.settle()
        close(self.run, self.setup, self.stepper.loss)
        return self.run.stopped


def _told(stop: StopReason | None, due: str | None) -> str:
    return f"stop for {stop.name}" if stop else f"grow {due}" if due else "go on"
