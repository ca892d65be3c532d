"""Deepen by blocks that are the identity, so that the function stays.

What: a residual block joins with the last layer of each branch at zero, a plain one (one square
layer, perhaps a batch norm, an idempotent activation) with the identity as its kernel. It works
from an empty stack as well: the network's class builds the first block (growth/first_block.py).

Equation: x + f(x) with f = W2 g(W1 x) and W2 = 0; or relu(I x) = x for x >= 0.

Hyperparameters: stacks (shell patterns), add (blocks for every stack), place (last, first, middle).

When it fails: exact in evaluation; in training too, but for a batch norm inside a plain block,
whose batch statistics differ from batch to batch. A plain block with a layer norm or an activation
that is not idempotent (gelu, tanh) cannot be the identity and is refused.

Evidence: 46.6 % saved at 8e20 FLOPs against 49.1 % of stack (G_stack, arXiv 2405.15319, figure 3);
Bu et al. (arXiv 2511.04981) find that zeroed branches learn features later.

Reference: Chen et al., Net2Net (Net2DeeperNet), arXiv 1511.05641, section 2.3; zeroed branches
after Goyal et al., arXiv 1706.02677.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.identity import make_identity
from progtrain.growth.newborn import input_of, reinitialise
from progtrain.growth.operators.deepen import check_deepen, placed


@dataclass(frozen=True)
class DeepenIdentity:
    """`add` blocks in every stack that matches `stacks` (shell patterns, `|` between)."""

    stacks: str = "*"
    add: int = 1
    place: str = "last"  # where in the stack: last, first, middle
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        check_deepen(self.add, self.place)

    def propose(self, host: Host) -> Edit:
        return placed(host, self.stacks, self.add, self.place)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for name in grown.edit.blocks():
            block = grown.model.get_submodule(name)
            reinitialise(block, generator)
            given = input_of(grown.model, block, grown.x)
            make_identity(block, *given.args, **given.kwargs)

    def flops(self, grown: Grown) -> float:
        return 0.0
