"""Old entries have the state that the mathematics gives them, new ones begin at 0: [S, 0].

Copies then start where their source started and part from it, whatever the shares are: the reset
that SPARKLING (arXiv 2602.02472) finds best for copied widths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from progtrain.growth.grow import Grown
from progtrain.growth.moments import followed, scaled
from progtrain.optimizers.group import State


@dataclass(frozen=True)
class AsymmetricState:
    """Scale what is old, forget nothing of it, and give nothing to what is new."""

    def carried(self, grown: Grown, name: str, parameter: nn.Parameter, state: State) -> State:
        return followed(state, parameter.shape, name, partial(scaled, grown, copies=False))
