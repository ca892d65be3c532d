"""The learning rate is cut at the transition until the metric is back where it was.

The cut begins with the growth and ends with the evaluation that finds the metric recovered
(train.recovery), at the latest after `within`. Then the rate is what the scheduler says then.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Clock, Duration
from progtrain.errors import require
from progtrain.run import Event, Phase


@dataclass(frozen=True)
class UntilRecovered:
    """`rate` times the scheduler's rate from a growth until it has recovered."""

    rate: float = 0.5
    within: str = "10%"

    def __post_init__(self) -> None:
        good = 0 < self.rate < 1
        require(good, "rate", self.rate, "in (0, 1)", "settle=none changes nothing.")
        within = Duration.parse(self.within, "within")
        require(within.value > 0, "within", self.within, "longer than 0", "Or use settle=none.")

    @property
    def lasting(self) -> Duration:
        return Duration.parse("0steps", "length")

    def factor(self, event: Event, clock: Clock) -> float:
        over = event.recovered is not None or event.phase is Phase.ROLLED_BACK
        late = clock.progress(event.moment, Duration.parse(self.within, "within")) >= 1
        return 1.0 if over or late else self.rate
