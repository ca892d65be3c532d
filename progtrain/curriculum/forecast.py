"""What the rest of a run will see: how many steps with which batch and size.

Curricula are pure functions of the clock, so the future is known wherever the run's length is in
steps, samples or epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil

from progtrain.clock import Clock, Duration, Moment, Unit
from progtrain.curriculum.sight import batch_size, cycle_start
from progtrain.curriculum.view import View
from progtrain.run import Run

Cost = Callable[[View], float]  # FLOPs of one sample at a view's size
UNKNOWN = (Unit.FLOP, Unit.SECOND)  # lengths that nobody knows in samples


@dataclass(frozen=True)
class Stretch:
    """Steps in a row with the same batch and size."""

    steps: int
    batch_size: int  # samples of one step
    flops: float  # of one sample


def stretches(run: Run, cost: Cost) -> Iterator[Stretch]:
    """The steps from now to the planned end; a curriculum that goes on and off within a stretch of
    steps, which none of ours does, may be seen in part only."""
    assert run.clock.total.unit not in UNKNOWN
    since = cycle_start(run)
    future = replace(run, clock=replace(run.clock))
    while left := _steps_left(future, since):
        view = future.curriculum.view(future, since)
        size, flops = batch_size(future, view), cost(view)
        steps = _unchanged(future, since, view, flops, left)
        yield Stretch(steps, size, flops)
        future.clock.now = _after(run.clock, future.clock.now, steps, size, flops)


def _steps_left(run: Run, since: Moment) -> int:
    clock = run.clock
    if clock.total.unit is Unit.STEP:
        return max(0, ceil(clock.total.value - clock.step - 1e-6))
    samples = clock.in_samples(clock.total, 1)
    assert samples is not None
    size = batch_size(run, run.curriculum.view(run, since))
    return max(0, ceil((samples - clock.now.samples) / size - 1e-6))


def _unchanged(run: Run, since: Moment, view: View, flops: float, left: int) -> int:
    """How many steps, at most `left`, have the batch and size of `view`, by bisection."""
    begun, size = run.clock.now, batch_size(run, view)

    def same(steps: int) -> bool:
        clock = replace(run.clock, now=_after(run.clock, begun, steps, size, flops))
        then = run.curriculum.view(replace(run, clock=clock), since)
        return _kind(then) == _kind(view)

    if same(left - 1):
        return left
    low, high = 0, left - 1  # after `low` steps it is the same, after `high` it is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if same(middle) else (low, middle)
    return high


def _kind(view: View) -> tuple[int | None, ...]:
    return view.side, view.length, view.batch_size


def _after(clock: Clock, now: Moment, steps: int, size: int, flops: float) -> Moment:
    """The moment after steps of `size` samples; seconds at the run's average pace."""
    pace = clock.now.seconds / clock.step if clock.step else 0.0
    samples, spent = steps * size, steps * size * flops
    return Moment(
        now.step + steps, now.samples + samples, now.flops + spent, now.seconds + steps * pace
    )


@dataclass(frozen=True)
class Timeline:
    """Steps and samples of a whole run, so that lengths in either can be compared."""

    clock: Clock
    points: tuple[tuple[float, float], ...]  # (step, samples), where the batch changes

    @staticmethod
    def of(run: Run) -> Timeline:
        """Past steps count as if all had been alike."""
        now = run.clock.now
        points = [(0.0, 0.0)] + ([(float(now.step), float(now.samples))] if now.step else [])
        known = run.clock.total.unit not in UNKNOWN
        varies = "batch_size" in run.curriculum.sets
        if known:
            for stretch in stretches(run, lambda view: run.flops):
                step, sample = points[-1]
                samples = stretch.steps * stretch.batch_size
                points.append((step + stretch.steps, sample + samples))
        elif not varies:
            step, sample = points[-1]
            points.append((step + 1, sample + run.batch_size))
        return Timeline(run.clock, tuple(points))

    def after(self, sample: float, length: Duration) -> float | None:
        """The sample that comes `length` after `sample`; None where nobody knows."""
        total = self.clock.total
        match length.unit:
            case Unit.SAMPLE:
                return sample + length.value
            case Unit.EPOCH:
                return sample + length.value * self.clock.epoch_samples
            case Unit.STEP:
                step = self.step(sample)
                return None if step is None else self._at(step + length.value, 0, 1)
            case Unit.FRACTION:
                return self.after(sample, Duration(length.value * total.value, total.unit))
            case _:
                return None

    def step(self, sample: float) -> float | None:
        """The step that begins with `sample`, a fraction where it lies within one."""
        return self._at(sample, 1, 0)

    def _at(self, place: float, known: int, wanted: int) -> float | None:
        """Along the line through the points; before and behind them it goes on straight."""
        pairs = list(zip(self.points, self.points[1:], strict=False))
        if not pairs:
            return None
        first, second = next((p for p in pairs if place <= p[1][known]), pairs[-1])
        share = (place - first[known]) / (second[known] - first[known])
        return first[wanted] + share * (second[wanted] - first[wanted])
