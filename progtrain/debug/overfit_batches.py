"""Learn a few batches by heart: a network that cannot is broken, or its training is.

The first batches of the run come again and again, for training and for evaluation, with no
curriculum, augmentation or mixing. Nothing generalises here: labels may be wrong or shuffled, the
loss must still go to about zero, and come back there after every growth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

from progtrain.augment.none import NoAugment
from progtrain.curriculum.none import NoCurriculum
from progtrain.data.sets import Batches
from progtrain.debug.first_batches import InOrder, first
from progtrain.debug.none import NoDebug
from progtrain.errors import require
from progtrain.mix.none import NoMix
from progtrain.report.units import metric
from progtrain.run import Run, StopReason
from progtrain.settings import whole

if TYPE_CHECKING:
    from progtrain.build import Parts
    from progtrain.debug.around import Around
    from progtrain.machine import Machine

_LOSS = "val/loss"  # of the same batches, without dropout
_LOOKS = 20  # evaluations of a run, at least


@dataclass(frozen=True)
class OverfitBatches(NoDebug):
    """Trains and evaluates on the first `batches` of the run for `steps`."""

    batches: int = 1
    steps: int = 300  # length of the run, instead of train.duration
    loss: float = 0.05  # the loss that counts as zero

    status = "overfit_batches"

    def __post_init__(self) -> None:
        for name in ("batches", "steps"):
            value = getattr(self, name)
            require(whole(value) and value >= 1, name, value, "a whole number >= 1")
            object.__setattr__(self, name, int(value))
        good = isfinite(self.loss) and self.loss > 0
        require(good, "loss", self.loss, "a finite number > 0", "Try 0.05.")

    def trimmed(self, parts: Parts) -> Parts:
        every = f"{max(1, self.steps // _LOOKS)}steps"
        train = replace(parts.train, duration=f"{self.steps}steps", evaluate_every=every)
        return replace(
            parts,
            train=train,
            curriculum=NoCurriculum(),
            augments={"none": NoAugment()},
            mix=NoMix(),
        )

    def cut(self, batches: Batches, size: int) -> Batches:
        sets = first(batches, self.batches * size)
        return InOrder(
            replace(sets, validation=sets.train, test=None), batches.seed, batches.device
        )

    def drive(self, machine: Machine, around: Around) -> StopReason:
        reason = machine.go()
        if reason is StopReason.INTERRUPTED:
            return reason
        spans = stages(machine.run)
        around.lines += [f"overfit: {span.told(self.loss)}" for span in spans]
        last = spans[-1]
        if not last.last <= self.loss:
            around.problem = (
                f"The network has not learnt the same {self.batches} batches by heart:"
                f" {_LOSS} is {metric(last.last)} after {machine.run.clock.step:,} steps, more than"
                f" debug.loss={self.loss:g}. Look at optimizer.lr, train.freeze, the labels, the"
                " loss (smoothed labels have a floor) and dropout; or raise debug.steps."
            )
        return reason


@dataclass(frozen=True)
class Span:
    """The loss between two growths."""

    name: str
    steps: int
    begun: float
    last: float
    lowest: float

    def told(self, zero: float) -> str:
        reached = "learnt by heart" if self.lowest <= zero else "not learnt by heart"
        return (
            f"{self.name}: loss {metric(self.begun)} → {metric(self.last)}"
            f" (lowest {metric(self.lowest)}) in {self.steps:,} steps: {reached}"
        )


def stages(run: Run) -> Sequence[Span]:
    """The loss of every stage that has been observed at least once."""
    borders = [0, *(event.moment.step for event in run.events), run.clock.step]
    names = ["start", *(f"after growth {e.index + 1} {e.stage}" for e in run.events)]
    found: list[Span] = []
    for name, since, until in zip(names, borders[:-1], borders[1:], strict=True):
        last = until == run.clock.step
        seen = [
            o.metrics[_LOSS]
            for o in run.history
            if since < o.moment.step and (o.moment.step <= until or last)
        ]
        if seen:
            found.append(Span(name, until - since, seen[0], seen[-1], min(seen)))
    return found
