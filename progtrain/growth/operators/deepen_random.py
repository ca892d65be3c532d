"""Deepen by freshly initialised blocks.

What: new blocks start as the network's class starts them and need nothing of the old ones but their
shape. So this works from an empty stack too, where nothing could be copied: the class builds the
first block, at the widths of now (growth/first_block.py).

Equation: f' = f after the old blocks and fresh ones in `place`; alone it changes the function, with
a warmup that starts silent (zero_init, ramps) it is exact at the growth.

Hyperparameters: stacks (shell patterns), add (blocks for every stack), place (last, first, middle).

When it fails: without a warmup the fresh blocks scramble what the old ones have learnt, most so in
a plain network and in place=first, where every old block reads something new.

Evidence: as good as copying under Muon from 0 or 1 layers (Bu et al.); under Adam at 8e20 FLOPs
it loses 25.7 % where copying saves 49.1 % (G_stack, arXiv 2405.15319, figure 3).

Reference: Bu et al., arXiv 2511.04981, for growing from none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, reinitialise
from progtrain.growth.operators.deepen import check_deepen, placed


@dataclass(frozen=True)
class DeepenRandom:
    """`add` blocks in every stack that matches `stacks` (shell patterns, `|` between)."""

    stacks: str = "*"
    add: int = 1
    place: str = "last"  # where in the stack: last, first, middle
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_deepen(self.add, self.place)

    def propose(self, host: Host) -> Edit:
        return placed(host, self.stacks, self.add, self.place)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        blocks = grown.edit.blocks()
        for name in blocks:
            reinitialise(grown.model.get_submodule(name), generator)
        calibrate(grown.model, (), blocks, grown.x)

    def flops(self, grown: Grown) -> float:
        return 0.0
