"""Deepen by freshly initialised blocks behind the old ones.

Alone it changes the function; a warmup that starts silent makes it exact at the growth. The only
choice that needs nothing of the old blocks but their shape (Bu et al., arXiv 2511.04981).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, reinitialise
from progtrain.growth.operators.deepen import appended, check_deepen


@dataclass(frozen=True)
class DeepenRandom:
    """`add` blocks in every stack that matches `stacks` (shell patterns, `|` between)."""

    stacks: str = "*"
    add: int = 1
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_deepen(self.add)

    def propose(self, host: Host) -> Edit:
        return appended(host, self.stacks, self.add)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        blocks = grown.edit.blocks()
        for name in blocks:
            reinitialise(grown.model.get_submodule(name), generator)
        calibrate(grown.model, (), blocks, grown.x)
