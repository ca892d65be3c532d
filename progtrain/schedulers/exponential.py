"""Exponential: the rate falls by a factor every epoch."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def exponential(completed: int, gamma: float) -> float:
    """Multiply the learning rate by `gamma` every time `every` is over, an epoch by default.

    m(t) = gamma ^ floor(t / every).

    Reference: torch.optim.lr_scheduler.ExponentialLR. It differs from `step` only in what one
    chooses it for: a factor near 1 and a short distance.
    """
    return gamma**completed


@dataclass(frozen=True)
class Exponential:
    """`exponential`; `every: 1steps` makes the fall smooth."""

    gamma: float = 0.95
    every: str = "1epochs"

    def __post_init__(self) -> None:
        require(is_number(self.gamma, 0), "gamma", self.gamma, "a number >= 0", "Try 0.95.")
        positive(self.every, "every")

    def multiplier(self, when: When) -> float:
        return exponential(when.completed(positive(self.every, "every")), self.gamma)
