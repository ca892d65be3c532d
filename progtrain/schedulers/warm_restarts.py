"""Warm restarts: half cosines one after the other, each longer than the one before."""

from __future__ import annotations

import math
from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, is_whole, positive


def warm_restarts(elapsed: float, factor: int, final: float) -> float:
    """Lower the learning rate along half a cosine, jump back, and take `factor` times as long.

    m(t) = final + (1 - final) (1 + cos(pi T_cur / T_i)) / 2, T_i = T_0 factor^i, where T_cur is
    what has passed since the last jump and elapsed = t / T_0.

    Reference: Loshchilov & Hutter 2017, SGDR (arXiv 1608.03983), eq. 5;
    torch.optim.lr_scheduler.CosineAnnealingWarmRestarts with eta_min = final * base rate.
    """
    position, length = elapsed, 1.0
    if factor == 1:
        position %= 1.0
    while position >= length - 1e-9:  # rounding must not delay a jump
        position, length = position - length, length * factor
    return final + (1 - final) * (1 + math.cos(math.pi * position / length)) / 2


@dataclass(frozen=True)
class WarmRestarts:
    """`warm_restarts`; choose `first` and `factor` so that a cycle ends with the run."""

    first: str = "25%"
    factor: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        positive(self.first, "first")
        require(is_whole(self.factor, 1), "factor", self.factor, "a whole number >= 1", "Try 2.")
        require(is_number(self.final, 0, 1), "final", self.final, "a number in [0, 1]", "Try 0.0.")

    def multiplier(self, when: When) -> float:
        return warm_restarts(when.elapsed(positive(self.first, "first")), self.factor, self.final)
