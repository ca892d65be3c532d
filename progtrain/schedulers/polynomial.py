"""Polynomial: the rate falls to 0 as a power of the time that is left."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def polynomial(elapsed: float, power: float) -> float:
    """Lower the learning rate to 0 as a power of what is left; power 1 is a straight line.

    m(t) = (1 - min(t, T) / T) ^ power, with elapsed = t / T.

    Reference: torch.optim.lr_scheduler.PolynomialLR.
    """
    return (1 - min(1.0, elapsed)) ** power


@dataclass(frozen=True)
class Polynomial:
    """`polynomial`, by default over the whole run."""

    length: str = "100%"
    power: float = 1.0

    def __post_init__(self) -> None:
        positive(self.length, "length")
        above = is_number(self.power, 0) and self.power > 0
        require(above, "power", self.power, "a number greater than 0", "Try 1.0.")

    def multiplier(self, when: When) -> float:
        return polynomial(when.elapsed(positive(self.length, "length")), self.power)
