"""No settling: the control."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Clock, Duration
from progtrain.run import Event


@dataclass(frozen=True)
class NoSettling:
    """The learning rate is what the scheduler says."""

    @property
    def lasting(self) -> Duration:
        return Duration.parse("0steps", "length")

    def factor(self, event: Event, clock: Clock) -> float:
        return 1.0
