"""Old entries keep their state as it is, new ones begin at 0.

Exact where old entries keep their gradients (random, zero and paired units, new blocks). Copies of
units take gradient from their source, whose moments are then too large until they have decayed:
for 1 / (1 − β) steps. New entries have counts of their own, so 0 is right for Adam too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from progtrain.growth.grow import Grown
from progtrain.growth.moments import followed, padded
from progtrain.optimizers.group import State


@dataclass(frozen=True)
class ZeroState:
    """Pad with zeros, as MSG (arXiv 2305.02869) and AutoGrow (arXiv 1906.02909) do."""

    def carried(self, grown: Grown, name: str, parameter: nn.Parameter, state: State) -> State:
        return followed(state, parameter.shape, name, partial(padded, grown))
