"""What follows a step that was withheld because its loss or a gradient was not finite.

    raise       the run ends: nothing was updated, and the error names the batch
    skip        that step is left out, the next one is not; too many of them end the run
    rollback    the run goes back to an anchor and on with later data; too many of them end it

The clock goes on: what a withheld step and what a rollback gives up stay spent. What must be
remembered is in `Run.memory`, so that a resume goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from progtrain.clock import Moment
from progtrain.curriculum.seen import drawn
from progtrain.errors import DivergedError
from progtrain.hardware.engine import Engine
from progtrain.hardware.shards import local
from progtrain.run import Json, Run
from progtrain.setup import Setup
from progtrain.withheld import Withheld, nonfinite

SKIPPED, ROW, ROLLBACKS = "nonfinite/skipped", "nonfinite/row", "nonfinite/rollbacks"
_MOST = 1000  # steps whose outcome may lie unread on a device


@dataclass(frozen=True)
class Taken:
    """A step that may have been withheld."""

    before: Moment
    sizes: tuple[int, int]  # samples of the step, and its forward passes
    share: float  # of the training samples, the easiest
    rate: float  # of the first group
    loss: Tensor
    withheld: Withheld

    @property
    def step(self) -> int:
        return self.before.step + 1


class Guard:
    """Follows `nonfinite.policy` for the steps of a run."""

    def __init__(self, run: Run, setup: Setup) -> None:
        self.run, self.setup = run, setup
        self.wanted = ""  # why the run must go back to an anchor
        self._unread: list[Taken] = []

    def note(self, loss: Tensor) -> None:
        """A step has been computed and the clock not yet moved; may raise `DivergedError`."""
        withheld = self.run.withheld
        if withheld is False:
            if self.run.memory.get(ROW):
                self.run.memory[ROW] = 0
            return
        taken = self._taken(loss)
        if withheld is True:
            self._answer(taken)
            return
        self._unread.append(taken)
        if len(self._unread) >= _MOST:
            self.read()

    def read(self) -> None:
        """Answer the steps that have been noted since the last time; waits for the device."""
        unread, self._unread = self._unread, []
        flags = [each.withheld for each in unread if isinstance(each.withheld, Tensor)]
        for taken, flag in zip(unread, torch.stack(flags).tolist() if flags else (), strict=True):
            if flag:
                self._answer(taken)
            else:
                self.run.memory[ROW] = 0

    def _taken(self, loss: Tensor) -> Taken:
        run = self.run
        rate = next(iter(run.optimizer.groups()))["lr"]
        sizes = (run.batch_size, run.accumulate)
        return Taken(run.clock.now, sizes, run.view.share, rate, loss, run.withheld)

    def _answer(self, taken: Taken) -> None:
        run, policy = self.run, self.setup.nonfinite
        text = told(run, taken)
        if policy.policy == "raise":
            raise DivergedError(f"{text} Nothing was updated.", facts(run, self.setup, taken))
        run.memory[SKIPPED] = skipped = _count(run, SKIPPED) + 1
        run.memory[ROW] = row = _count(run, ROW) + 1
        self.setup.reporter.found(run, "nonfinite", f"{text} Its update is left out.", None)
        if policy.policy == "rollback":
            self.wanted = self.wanted or text
            return
        limits = (("in_a_row", row, " in a row"), ("most", skipped, ""))
        for name, count, words in limits:
            limit: int | None = getattr(policy, name)
            if limit is not None and count > limit:
                text += (
                    f" {count} steps{words} were left out; nonfinite.{name}={limit} is the most."
                )
                raise DivergedError(text, facts(run, self.setup, taken))

    def answered(self) -> str:
        """The run goes back: why. Raises `DivergedError` where it has done so too often."""
        why, self.wanted = self.wanted, ""
        self.run.memory[ROLLBACKS] = count = _count(self.run, ROLLBACKS) + 1
        if count > (limit := self.setup.nonfinite.rollbacks):
            raise DivergedError(f"{why} nonfinite.rollbacks={limit} is the most.")
        self.run.memory[ROW] = 0
        return why

    def observed(self) -> None:
        """An evaluation is over; rollback: go back where it was not finite, or the weights."""
        bad = [n for n, v in self.run.history[-1].metrics.items() if not isfinite(v)]
        if self.setup.nonfinite.policy == "rollback" and bad:
            self.wanted = f"{', '.join(bad)} at step {self.run.clock.step} is not finite."


def refuse(run: Run, setup: Setup, metrics: Mapping[str, float]) -> None:
    """What follows an evaluation that is not finite, where it is not to go back."""
    bad = [name for name, value in metrics.items() if not isfinite(value)]
    if not bad:
        return
    text = f"{', '.join(bad)} at step {run.clock.step} is not finite."
    if setup.nonfinite.policy == "raise":
        raise DivergedError(text)  # report/diverged.py adds which checkpoint is whole
    setup.reporter.found(run, "nonfinite", text, None)


def finite_weights(run: Run, engine: Engine) -> bool:
    """Whether every parameter is finite, in the shards of all processes; waits for the device."""
    found = nonfinite([local(p.detach()) for p in run.optimizer.parameters.values()])
    return not bool(found if engine.shards is None else engine.group.reduced(found, "max"))


def told(run: Run, taken: Taken) -> str:
    """One sentence: what, when, in which stage, at which rate."""
    loss = float(taken.loss)
    what = f"Loss became {loss:g}" if not isfinite(loss) else "A gradient is not finite"
    past = [event for event in run.grown if event.moment.step <= taken.before.step]
    since = f", {taken.step - past[-1].moment.step:,} steps after growth" if past else ""
    return f"{what} at step {taken.step:,} (stage {len(past) + 1}{since}, lr {taken.rate:.3g})."


def facts(run: Run, setup: Setup, taken: Taken) -> dict[str, Json]:
    """Of a step: everything that helps to find what was wrong, and which samples it saw."""
    size, parts = taken.sizes
    index = torch.cat(
        [
            drawn(run.order, taken.share, setup.batches, taken.before.samples + at, size // parts)
            for at in range(0, size // parts * parts, size // parts)
        ]
    )
    source = setup.batches.sets.train.source
    gradients = {n: p.grad for n, p in run.optimizer.parameters.items() if p.grad is not None}
    mine = [n for n, grad in gradients.items() if bool(nonfinite([local(grad)]))]
    of_all = setup.engine.group.gathered(mine)  # in shards, of one process perhaps
    bad: list[Json] = [n for n in gradients if any(n in names for names in of_all)]
    past = [event for event in run.grown if event.moment.step <= taken.before.step]
    return {
        "step": taken.step,
        "epoch": taken.before.samples / run.clock.epoch_samples,
        "stage": past[-1].stage if past else "start",
        "steps_since_growth": taken.step - past[-1].moment.step if past else None,
        "learning_rate": taken.rate,
        "loss": repr(float(taken.loss)),
        "weights_finite": finite_weights(run, setup.engine),
        # those of the last step; on a GPU it may be a later one
        "gradients_not_finite": bad if taken.withheld is True else None,
        "batch": index.tolist(),
        "samples_as_read": None if source is None else source[index.to(source.device)].tolist(),
    }


def _count(run: Run, name: str) -> int:
    value = run.memory.get(name, 0)
    return value if isinstance(value, int) else 0
