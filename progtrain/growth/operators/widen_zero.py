"""Widen with random units that nothing reads yet: W' = [W, 0] in every consumer.

Exact for any step size and any network without a layer norm behind a nonlinearity. New units
learn one step after their consumers do (operators.md of the literature: "zero outgoing"; used by
GradMax, Evci et al., arXiv 2201.05125, as its baseline).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import zero_consumers
from progtrain.growth.operators.widen import check_widen, padded
from progtrain.growth.operators.widen_random import WidenRandom


@dataclass(frozen=True)
class WidenZero:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor)

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        WidenRandom(self.spaces, self.factor).fill(grown, generator)
        zero_consumers(grown.model, grown.edit.slabs())
