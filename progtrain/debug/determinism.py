"""Two runs from one start, step by step: they must be equal in every bit.

Both live in one process and take turns, each with its own random numbers. After every move of the
machine loss, gradients, weights, buffers, optimizer state and metrics are held against each other,
and the first difference ends the run. At `resume` the second one is stored, read and goes on, so
the checkpoint is held to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from progtrain.clock import Duration, Moment
from progtrain.debug.difference import difference
from progtrain.debug.none import NoDebug
from progtrain.errors import require
from progtrain.machine import Machine, State
from progtrain.run import Run, StopReason
from progtrain.state import random_numbers, set_random_numbers

if TYPE_CHECKING:
    from progtrain.debug.around import Around

_NO_TWIN = (StopReason.INTERRUPTED, StopReason.SECONDS)  # the second run need not come to these
_DONE = {
    State.STEP: "in",
    State.GROW: "at the growth of",
    State.OBSERVE: "at the evaluation of",
    State.DECIDE: "after",
}


@dataclass(frozen=True)
class Determinism(NoDebug):
    """Makes the run twice and ends it with exit code 7 at the first bit that differs."""

    resume: str | None = "50%"  # when the second run is stored and resumed; null: never

    def __post_init__(self) -> None:
        if self.resume is not None:
            value = Duration.parse(self.resume, "resume").value
            require(value > 0, "resume", self.resume, "longer than 0, or null", "Try 50%.")

    def drive(self, machine: Machine, around: Around) -> StopReason:
        first, second = Turns(machine), Turns(around.again())
        resumed: int | None = None  # the step where
        while first.coming is not State.STOP:
            if resumed is None and first.coming is State.DECIDE and self._is_time(machine.run):
                second, resumed = Turns(second.again(around)), machine.run.clock.step
            state = first.coming
            first.move()
            if machine.run.stopped in _NO_TWIN:
                break
            second.move()
            seen = machine.setup.engine.group.gathered(compared(first, second, state))
            if found := next(filter(None, seen), ""):  # in shards, of one process perhaps
                around.problem = found + ("" if resumed is None else _past(resumed))
                return first.stop(StopReason.DEBUGGED)
        reason = first.stop()
        around.lines.append(agreed(machine.run, resumed))
        return reason

    def _is_time(self, run: Run) -> bool:
        if self.resume is None:
            return False
        return run.clock.progress(Moment(), Duration.parse(self.resume, "resume")) >= 1


class Turns:
    """A machine that moves with random numbers of its own."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._numbers = random_numbers(machine.setup.engine)
        self._moves = machine.moves()
        self.coming = next(self._moves, State.STOP)

    def move(self) -> None:
        """Do what is coming."""
        set_random_numbers(self._numbers, self.machine.setup.engine)
        self.coming = next(self._moves, State.STOP)
        self._numbers = random_numbers(self.machine.setup.engine)

    def again(self, around: Around) -> Machine:
        """The same run out of a checkpoint made now."""
        set_random_numbers(self._numbers, self.machine.setup.engine)
        return around.again(self.machine)

    def stop(self, reason: StopReason | None = None) -> StopReason:
        set_random_numbers(self._numbers, self.machine.setup.engine)
        return self.machine.stop(reason)


def compared(first: Turns, second: Turns, state: State) -> str:
    """The first difference after a move of both, in words; empty where there is none."""
    run = first.machine.run
    where = f"{_DONE[state]} step {run.clock.step:,}"
    if first.coming is not second.coming:
        ways = f"{first.coming.name} in one run and {second.coming.name} in the other"
        return (
            f"Two runs from one start part {where}: what comes next is {ways}. Lengths and limits"
            " in seconds cannot be repeated; use steps, epochs, samples or flops."
        )
    if state is State.DECIDE:
        return ""
    found = difference(first.machine, second.machine, stepped=state is State.STEP)
    if found is None:
        return ""
    return f"Two runs from one start differ {where}: {found}"


def _past(step: int) -> str:
    return f" The second run had been resumed from a checkpoint of step {step:,}."


def agreed(run: Run, resumed: int | None) -> str:
    grown = f"{len(run.events)} growth" + "s" * (len(run.events) != 1)
    again = (
        ""
        if resumed is None
        else f"; the second was stored and resumed at step {resumed:,} as well"
    )
    return (
        f"determinism: two runs of {run.clock.step:,} steps and {grown} are equal in every bit of"
        f" loss, gradients, weights, buffers, optimizer state and metrics{again}."
    )
