"""Walks through the future of a run on its clock alone: no step is computed.

The growth policy itself is asked whether it is time, so whatever it makes of the clock is right. A
policy that looks at metrics cannot be foreseen; that it looks is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import SupportsIndex

from progtrain.clock import Clock, Duration, Moment, Unit
from progtrain.curriculum.sight import Sight
from progtrain.growth.life import advanced
from progtrain.run import Observation, Run, Stage, StopReason
from progtrain.setup import Setup

_PIECES = 4000  # a run is walked through in about so many pieces


class Unseen(list[Observation]):
    """Evaluations that nobody has made yet; knows whether somebody has asked for them."""

    asked = False

    def __iter__(self) -> Iterator[Observation]:
        self.asked = True
        return super().__iter__()

    def __len__(self) -> int:
        self.asked = True
        return super().__len__()

    def __getitem__(self, index: SupportsIndex | slice) -> Observation | list[Observation]:  # type: ignore[override]
        self.asked = True
        return super().__getitem__(index)


@dataclass(frozen=True)
class Walked:
    """A stretch of a run between two growths, or a growth and the end."""

    begin: Moment
    end: Moment
    due: Stage | None  # what grows at its end
    asked: bool  # a metric was asked for: a growth may come at any time in it
    known: bool = True  # whether the run's length can be counted at all

    @property
    def open(self) -> bool:
        """Whether nobody knows where it ends."""
        return self.asked and self.due is None

    @property
    def steps(self) -> int:
        return self.end.step - self.begin.step


def walk(run: Run, setup: Setup, step_seconds: float | None) -> Walked:
    """Walk `run` on to its next growth or to its end; its clock and its growths' lives move on."""
    begin, asked = run.clock.now, False
    walker = _Walker(run, setup, step_seconds)
    if not walker.piece:
        return Walked(begin, begin, None, asked=True, known=False)
    while not walker.over():
        due, looked = walker.due()
        asked = asked or looked
        if due is not None:
            return Walked(begin, run.clock.now, due, looked)
        walker.advance()
    return Walked(begin, run.clock.now, None, asked)


def times(begin: Moment, end: Moment, every: str, clock: Clock) -> int:
    """How often a multiple of `every` lies between two moments."""
    length = Duration.parse(every, "every")
    first, last = (int(clock.count(m, length.unit) / length.value + 1e-9) for m in (begin, end))
    return last - first


class _Walker:
    """Moves one run's clock. `piece` is how many steps at most are walked at once; 0: unknown."""

    def __init__(self, run: Run, setup: Setup, step_seconds: float | None) -> None:
        self.run, self.setup, self.seconds = run, setup, step_seconds or 0.0
        self._sight, self._careful = Sight(), 0
        self.piece = self._piece(step_seconds)

    def _piece(self, step_seconds: float | None) -> int:
        self._look()
        clock = self.run.clock
        if clock.total.unit is Unit.SECOND and not step_seconds:
            return 0
        step = clock.count(self._after(1), clock.total.unit)
        step -= clock.count(clock.now, clock.total.unit)
        return max(1, int(clock.total.value / step / _PIECES)) if step > 0 else 0

    def over(self) -> bool:
        """Whether the run has ended here, as far as its clock can tell."""
        run, stop, now = self.run, self.setup.stop, self.run.clock.now
        flops, seconds = stop.max_flops, stop.max_seconds
        spent = flops is not None and now.flops + run.step_flops > flops
        late = seconds is not None and self.seconds > 0 and now.seconds >= seconds
        return spent or late or run.clock.fraction >= 1

    def due(self) -> tuple[Stage | None, bool]:
        """What grows now, and whether a metric was asked for."""
        history = Unseen(self.run.history)
        stage = None
        if self.run.grown_out is None:
            stage = self.setup.growth.next(replace(self.run, history=history))
        if isinstance(stage, StopReason):
            self.run.grown_out, stage = stage, None
        return stage, history.asked

    def advance(self) -> None:
        """Some steps on; one by one where something happens."""
        run, before = self.run, (self.run.clock.now, list(self.run.events))
        if self.piece == 1 or self._careful:
            self._careful = max(0, self._careful - 1)
            self._move(1)
            return
        self._move(self.piece)
        lives = [event.phase for event in run.events] != [event.phase for event in before[1]]
        if lives or self.over() or self.due()[0] is not None:
            run.clock.now, run.events[:] = before
            self._careful = self.piece
            self._look()

    def _move(self, steps: int) -> None:
        run = self.run
        run.clock.now = self._after(steps)
        run.events[:] = [advanced(event, self.setup, run.clock) for event in run.events]
        self._look()

    def _look(self) -> None:
        if self._sight.look(self.run):
            self._sight.measure(self.run)

    def _after(self, steps: int) -> Moment:
        run, now = self.run, self.run.clock.now
        return Moment(
            now.step + steps,
            now.samples + steps * run.batch_size,
            now.flops + steps * run.step_flops,
            now.seconds + steps * self.seconds,
        )
