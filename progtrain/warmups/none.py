"""No warmup: what is new counts fully at once. The control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.contracts import Strength
from progtrain.run import Phase


@dataclass(frozen=True)
class NoWarmup:
    """Nothing: preservation is the operator's affair."""

    preserves = False
    zeroes = False
    blends = False
    isolates = False

    def lengths(self) -> Mapping[Phase, Duration]:
        return {}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return Strength()
