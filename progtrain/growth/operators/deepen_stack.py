"""Deepen by copies of the old blocks, in their order: new layer i is old layer i mod depth.

G_stack (Du et al., arXiv 2405.15319). It changes the function, and the loss heals fast; weights
are copied, optimizer state of the copies starts empty (MIDAS, arXiv 2409.19044).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate
from progtrain.growth.operators.deepen import appended, check_deepen


@dataclass(frozen=True)
class DeepenStack:
    """`add` blocks in every stack that matches `stacks`; `add` = depth doubles the stack."""

    stacks: str = "*"
    add: int = 1
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_deepen(self.add)

    def propose(self, host: Host) -> Edit:
        return appended(host, self.stacks, self.add)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        """The edit has copied the weights; only the statistics see another input now."""
        calibrate(grown.model, (), grown.edit.blocks(), grown.x)
