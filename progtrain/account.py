"""What compute went into, word by word: whole FLOPs, and seconds of the wall.

The charged words sum to the clock's FLOPs to the last digit, as FLOPs are counted in whole numbers
that Python never rounds. What every run does (evaluations, checkpoints) is counted and not charged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

TRAINING = "training"  # optimizer steps on the labels, of what was kept
COMPILATION = "compilation"  # seconds of steps that compiled; their FLOPs are training
TEACHERS = "teachers"  # their forward passes in optimizer steps
GROWTH = "growth"  # operators that look at gradients, probes, trials, growth.keep_if
MONITORS = "monitors"  # evaluations that monitors ask for
SCORES = "scores"  # ranking the samples for a curriculum
LOST = "lost"  # all that was charged between a state and the return to it
UNTOLD = "untold"  # of a checkpoint that was stored before there was an account
EVALUATION, STORING = "evaluation", "storing"  # not charged
RECOMPUTATION = "recomputation"  # second forwards of activation checkpointing; not charged
AHEAD = "ahead"  # seconds of a process beside the run that compiles for its growths; not charged

CHARGED = (TRAINING, GROWTH, TEACHERS, MONITORS, SCORES, LOST)
UNCHARGED = (EVALUATION, STORING, RECOMPUTATION, AHEAD)


@dataclass(frozen=True)
class Account:
    """FLOPs and seconds by what they went into, and the tokens that were trained on."""

    flops: Mapping[str, int] = field(default_factory=lambda: dict[str, int]())
    seconds: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    tokens: int = 0  # targets of sequences

    def plus(self, what: str, flops: int, seconds: float) -> Account:
        return replace(
            self,
            flops={**self.flops, what: self.flops.get(what, 0) + flops} if flops else self.flops,
            seconds={**self.seconds, what: self.seconds.get(what, 0.0) + seconds},
        )

    @property
    def charged(self) -> int:
        """FLOPs that are the run's: the clock's."""
        return sum(count for what, count in self.flops.items() if what not in UNCHARGED)

    def given_up(self, then: Account) -> Account:
        """What was charged since `then` is lost; seconds stay where they went."""
        lost = then.flops.get(LOST, 0) + self.charged - then.charged
        kept = {what: n for what, n in then.flops.items() if what not in UNCHARGED}
        counted = {what: n for what, n in self.flops.items() if what in UNCHARGED}
        return replace(self, flops={**kept, **counted, **({LOST: lost} if lost else {})})

    def shares(self) -> dict[str, float]:
        """Of all charged FLOPs, what each word has, in [0, 1]; the largest first."""
        whole = self.charged
        told = {what: n / whole for what, n in self.flops.items() if what not in UNCHARGED and n}
        return dict(sorted(told.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        flops, seconds = dict(self.flops), dict(self.seconds)
        return {"flops": flops, "seconds": seconds, "tokens": self.tokens}

    @staticmethod
    def from_json(kept: Mapping[str, Any] | None, flops: float = 0.0) -> Account:
        """As stored; `flops` of a checkpoint that has no account are untold."""
        return Account(**kept) if kept else Account({UNTOLD: int(flops)} if flops else {})
