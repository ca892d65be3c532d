"""The output of what is new is blended in fast at first, then ever more slowly.

    α(p) = (1 − e^(−5p)) / (1 − e^(−5))

p is the share of `length` that is over at the end of the coming step, so the last step of the
ramp runs at exactly 1 and the first at more than 0 (a ramp in seconds can only guess that end).
Without the division the ramp would end at 0.993 and jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from progtrain.clock import Duration
from progtrain.contracts import Strength
from progtrain.run import Phase
from progtrain.warmups.ramp import check_length


def alpha(p: float) -> float:
    """Strength of the new part at progress p in [0, 1]."""
    return 1.0 if p >= 1 else (1 - exp(-5 * p)) / (1 - exp(-5))


@dataclass(frozen=True)
class ExponentialRamp:
    """New blocks are blended with their input, columns that read new units are scaled."""

    length: str = "5%"  # of the run, or any other length
    isolated: bool = False  # what is new passes no gradient on to the host while it ramps
    preserves = True
    zeroes = False
    blends = True

    def __post_init__(self) -> None:
        check_length(self.length)

    @property
    def isolates(self) -> bool:
        return self.isolated

    def lengths(self) -> Mapping[Phase, Duration]:
        return {Phase.WARMUP: Duration.parse(self.length, "length")}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return Strength(alpha=alpha(progress) if phase is Phase.WARMUP else 1.0)
