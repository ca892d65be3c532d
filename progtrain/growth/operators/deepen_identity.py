"""Deepen by blocks that are the identity: a zeroed residual branch, or Net2DeeperNet's kernel.

Exact in evaluation; in training too, but for batch norm inside a plain block, whose batch
statistics differ from batch to batch (Chen et al., arXiv 1511.05641, section 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.identity import make_identity
from progtrain.growth.newborn import input_of, reinitialise
from progtrain.growth.operators.deepen import appended, check_deepen


@dataclass(frozen=True)
class DeepenIdentity:
    """`add` blocks in every stack that matches `stacks` (shell patterns, `|` between)."""

    stacks: str = "*"
    add: int = 1
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        check_deepen(self.add)

    def propose(self, host: Host) -> Edit:
        return appended(host, self.stacks, self.add)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for name in grown.edit.blocks():
            block = grown.model.get_submodule(name)
            reinitialise(block, generator)
            make_identity(block, input_of(grown.model, block, grown.x))
