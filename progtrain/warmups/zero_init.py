"""What is new starts with zero output: outgoing weights are 0, and training scales them up.

No factor multiplies them: a zero times a scale that starts at 0 would have no gradient for ever.
Their own gradient is not 0, so they leave zero at the first step, and what feeds them learns from
the second (the zero-initialised branches of Goyal et al., arXiv 1706.02677).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.contracts import Strength
from progtrain.run import Phase


@dataclass(frozen=True)
class ZeroInit:
    """Columns that read new units become 0; a new block becomes the identity."""

    preserves = True
    zeroes = True
    blends = False
    isolates = False

    def lengths(self) -> Mapping[Phase, Duration]:
        return {}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return Strength()
