"""Constant: the base rate, or a share of it for the first part of the run."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def constant(elapsed: float, factor: float) -> float:
    """Hold the learning rate at one share of its base, then at the base.

    m(t) = factor for t < T, else 1, with elapsed = t / T.

    Reference: torch.optim.lr_scheduler.ConstantLR.
    """
    return factor if elapsed < 1 else 1.0


@dataclass(frozen=True)
class Constant:
    """`constant` over a length of the run."""

    factor: float = 1.0
    length: str = "100%"

    def __post_init__(self) -> None:
        require(is_number(self.factor, 0), "factor", self.factor, "a number >= 0", "Try 1.0.")
        positive(self.length, "length")

    def multiplier(self, when: When) -> float:
        return constant(when.elapsed(positive(self.length, "length")), self.factor)
