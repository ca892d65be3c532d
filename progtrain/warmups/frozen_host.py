"""The host is frozen while only what is new learns; then both train.

Frozen means bit for bit: weights, optimizer state and running statistics of the host stay, also
the old entries of a widened tensor, and weight decay does not touch them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.contracts import Strength
from progtrain.errors import require
from progtrain.run import Phase


@dataclass(frozen=True)
class FrozenHost:
    """Freeze for `isolation`; with `zero_output` what is new starts silent."""

    isolation: str = "5%"
    zero_output: bool = True
    blends = False
    isolates = False

    def __post_init__(self) -> None:
        length = Duration.parse(self.isolation, "isolation")
        hint = "warmup=none freezes nothing."
        require(length.value > 0, "isolation", self.isolation, "longer than 0", hint)

    @property
    def preserves(self) -> bool:
        return self.zero_output

    @property
    def zeroes(self) -> bool:
        return self.zero_output

    def lengths(self) -> Mapping[Phase, Duration]:
        return {Phase.ISOLATE: Duration.parse(self.isolation, "isolation")}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return Strength()
