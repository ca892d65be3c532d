"""Step: the rate falls by a factor at equal distances."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def step(completed: int, gamma: float) -> float:
    """Multiply the learning rate by `gamma` whenever another `size` of training is complete.

    m(t) = gamma ^ floor(t / size).

    Reference: torch.optim.lr_scheduler.StepLR.
    """
    return gamma**completed


@dataclass(frozen=True)
class Step:
    """`step` every `size`."""

    size: str = "30%"
    gamma: float = 0.1

    def __post_init__(self) -> None:
        positive(self.size, "size")
        require(is_number(self.gamma, 0), "gamma", self.gamma, "a number >= 0", "Try 0.1.")

    def multiplier(self, when: When) -> float:
        return step(when.completed(positive(self.size, "size")), self.gamma)
