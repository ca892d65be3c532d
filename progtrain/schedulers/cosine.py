"""Cosine: the rate falls along half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def cosine(elapsed: float, final: float) -> float:
    """Lower the learning rate along half a cosine wave, slowly at both ends.

    m(t) = final + (1 - final) (1 + cos(pi t / T)) / 2, with elapsed = t / T; beyond T it rises
    again, as the equation says.

    Reference: Loshchilov & Hutter 2017, SGDR (arXiv 1608.03983), eq. 5 without restarts;
    torch.optim.lr_scheduler.CosineAnnealingLR with eta_min = final * base rate.
    """
    return final + (1 - final) * (1 + math.cos(math.pi * elapsed)) / 2


@dataclass(frozen=True)
class Cosine:
    """`cosine`, by default over the whole run."""

    length: str = "100%"
    final: float = 0.0

    def __post_init__(self) -> None:
        positive(self.length, "length")
        require(is_number(self.final, 0, 1), "final", self.final, "a number in [0, 1]", "Try 0.0.")

    def multiplier(self, when: When) -> float:
        return cosine(when.elapsed(positive(self.length, "length")), self.final)
