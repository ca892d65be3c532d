"""All state begins anew at a growth, as if training started from these weights.

What most code does by accident, as it builds a new optimizer. The worst choice for copies of units
(SPARKLING, arXiv 2602.02472, figure 2); G_stack (arXiv 2405.15319) resets with a new warm-up of the
learning rate: at_growth=rewarm.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from progtrain.growth.grow import Grown
from progtrain.optimizers.group import State


@dataclass(frozen=True)
class ResetState:
    """Remember nothing."""

    def carried(self, grown: Grown, name: str, parameter: nn.Parameter, state: State) -> State:
        return {}
