"""Every entry has the state that the mathematics gives it; what has no past begins at 0.

Copies get the moments of their source, both by the factor of their gradients (growth/moments.py):
what the optimizer remembers is what it would have seen had the network been grown all along. Exact
for equal shares; with uneven ones (widen.unevenness) for their mean. Equal copies with equal state
stay equal for ever: use uneven shares with it. Exact copies of states gained nothing in SPARKLING's
ablation (arXiv 2602.02472).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from progtrain.growth.grow import Grown
from progtrain.growth.moments import followed, scaled
from progtrain.optimizers.group import State


@dataclass(frozen=True)
class CarryState:
    """As staged training grows its states (Shen et al., arXiv 2203.06211), for any map of units."""

    def carried(self, grown: Grown, name: str, parameter: nn.Parameter, state: State) -> State:
        return followed(state, parameter.shape, name, partial(scaled, grown, copies=True))
