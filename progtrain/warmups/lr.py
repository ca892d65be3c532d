"""The learning rate of what is new goes from 0 to the base rate: η(p) = p · η.

It scales the update that the optimizer made, not the gradient: Adam divides gradients by their own
size, so scaling those changes nothing. New entries of a widened tensor are slowed alone, their old
neighbours keep their rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.contracts import Strength
from progtrain.errors import require
from progtrain.run import Phase


@dataclass(frozen=True)
class LearningRateWarmup:
    """Linear over `length`; with `zero_output` what is new also starts silent."""

    length: str = "5%"
    zero_output: bool = True
    blends = False
    isolates = False

    def __post_init__(self) -> None:
        length = Duration.parse(self.length, "length")
        require(length.value > 0, "length", self.length, "longer than 0", "Or use warmup=none.")

    @property
    def preserves(self) -> bool:
        return self.zero_output

    @property
    def zeroes(self) -> bool:
        return self.zero_output

    def lengths(self) -> Mapping[Phase, Duration]:
        return {Phase.WARMUP: Duration.parse(self.length, "length")}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return Strength(newborn_rate=progress if phase is Phase.WARMUP else 1.0)
