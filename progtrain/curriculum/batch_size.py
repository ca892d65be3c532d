"""Small batches first: the batch doubles at milestones or at equal distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from progtrain.clock import Duration, Moment
from progtrain.curriculum.lasting import check_length
from progtrain.curriculum.view import View
from progtrain.errors import ConfigError, require
from progtrain.run import Run
from progtrain.settings import whole
from progtrain.setup import Setup

# Exponent of (batch / first batch) by which the learning rate follows.
RULES = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}


@dataclass(frozen=True)
class BatchSize:
    """Samples of a forward pass: start · 2^k, at most `maximum`; train.accumulate stays as it is.

    Reference: Smith et al. 2018 (arXiv 1711.00489), a growing batch in place of a falling rate;
    the rules of the learning rate are those of Goyal et al. 2017 (arXiv 1706.02677; linear) and
    Krizhevsky 2014 (arXiv 1404.5997; sqrt).
    """

    start: int  # samples of a forward pass at the beginning
    every: str | None = "20%"  # distance of doublings; null: at the milestones
    milestones: Sequence[str] = field(default_factory=lambda: list[str]())
    maximum: int = 512  # samples of a forward pass
    lr: str = "none"  # how the learning rate follows: none, sqrt, linear

    def __post_init__(self) -> None:
        good = whole(self.maximum) and self.maximum >= self.start
        hint = "It is the batch at the end."
        require(good, "maximum", self.maximum, f"a whole number >= {self.start}", hint)
        one = (self.every is None) != (not self.milestones)
        hint = "Set curriculum.every=null with milestones."
        told = f"{self.every} and {list(self.milestones)}"
        require(one, "every and milestones", told, "one of the two", hint)
        if self.every is not None:
            check_length(self.every, "every")
        for milestone in self.milestones:
            check_length(milestone, "milestones")
        require(self.lr in RULES, "lr", self.lr, "one of " + ", ".join(RULES))

    @property
    def sets(self) -> frozenset[str]:
        return frozenset({"batch_size", "rate"})

    def view(self, run: Run, since: Moment) -> View:
        passed, most = self._doublings(run, since), self._most()
        batch = min(self.start * 2 ** min(passed, most), self.maximum)
        rate = (batch / self.start) ** RULES[self.lr]
        progress = min(1.0, passed / most) if most else 1.0
        return View(batch_size=batch, rate=rate, progress=progress)

    def _doublings(self, run: Run, since: Moment) -> int:
        """How many doublings are over."""
        clock = run.clock
        if self.every is None:
            due = [clock.progress(since, Duration.parse(m, "milestones")) for m in self.milestones]
            return len([share for share in due if share >= 1])
        every = Duration.parse(self.every, "every")
        passed = clock.count(clock.now, every.unit) - clock.count(since, every.unit)
        return max(0, int(passed / every.value + 1e-9))

    def _most(self) -> int:
        """How many there are until the batch grows no more."""
        needed = 0
        while self.start * 2**needed < self.maximum:
            needed += 1
        return needed if self.every is not None else min(needed, len(self.milestones))

    def check(self, run: Run) -> None:
        count = run.clock.epoch_samples
        most = min(self.maximum, self.start * 2 ** self._most()) * run.accumulate
        if most > count:
            raise ConfigError(
                f"curriculum.maximum={self.maximum} makes steps of {most} samples, more than the"
                f" {count} training samples. Use curriculum.maximum={count // run.accumulate} or"
                " less."
            )

    def order(self, run: Run, setup: Setup) -> Tensor | None:
        return None
