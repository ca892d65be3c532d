"""Cyclic: the rate rises and falls along triangles."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration, Unit
from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def cyclic(elapsed: float, rise: float, height: float) -> float:
    """Move the learning rate up from its base and down again, straight, once a cycle.

    m(t) = 1 + height * (x / rise where x < rise, else (1 - x) / (1 - rise)), with x the part of
    the cycle that is over and elapsed = t / cycle.

    Reference: Smith 2017, Cyclical learning rates (arXiv 1506.01186);
    torch.optim.lr_scheduler.CyclicLR (its momentum stays untouched here).
    """
    x = elapsed % 1.0
    return 1 + height * (x / rise if x <= rise else (1 - x) / (1 - rise))


@dataclass(frozen=True)
class Cyclic:
    """`cyclic` with peaks that may fall from cycle to cycle, from step to step, or both.

    `cycle_gamma` 0.5 is torch's mode triangular2; `step_gamma` is the gamma of its exp_range.
    """

    cycle: str = "20%"
    rise: float = 0.5
    max_factor: float = 3.0
    cycle_gamma: float = 1.0
    step_gamma: float = 1.0

    def __post_init__(self) -> None:
        positive(self.cycle, "cycle")
        inside = is_number(self.rise, 0, 1) and 0 < self.rise < 1
        require(inside, "rise", self.rise, "a number between 0 and 1", "Try 0.5.")
        high = is_number(self.max_factor, 1)
        require(high, "max_factor", self.max_factor, "a number >= 1", "Try 3.0.")
        for setting in ("cycle_gamma", "step_gamma"):
            gamma = getattr(self, setting)
            require(is_number(gamma, 0, 1), setting, gamma, "a number in [0, 1]", "Try 1.0.")

    def multiplier(self, when: When) -> float:
        cycle = positive(self.cycle, "cycle")
        steps = when.completed(Duration(1, Unit.STEP))
        fall = self.cycle_gamma ** when.completed(cycle) * self.step_gamma**steps
        return cyclic(when.elapsed(cycle), self.rise, (self.max_factor - 1) * fall)
