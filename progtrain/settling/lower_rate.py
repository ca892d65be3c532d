"""After the warmup every group learns more slowly for a while, then as the scheduler says then.

The factor multiplies what the scheduler says at each step. Nothing is stored, so there is no old
learning rate that the end of the period could bring back.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Clock, Duration
from progtrain.errors import require
from progtrain.run import Event, Phase


@dataclass(frozen=True)
class LowerRate:
    """Everything learns at `rate` times the scheduler's rate for `length` after a warmup."""

    rate: float = 0.3
    length: str = "3%"

    def __post_init__(self) -> None:
        good = 0 < self.rate < 1
        require(good, "rate", self.rate, "in (0, 1)", "settle=none changes nothing.")
        length = Duration.parse(self.length, "length")
        require(length.value > 0, "length", self.length, "longer than 0", "Or use settle=none.")

    @property
    def lasting(self) -> Duration:
        return Duration.parse(self.length, "length")

    def factor(self, event: Event, clock: Clock) -> float:
        return self.rate if event.phase is Phase.SETTLE else 1.0
