"""Deepen by copies of the old blocks behind them, in their order.

What: every stack that matches gets `add` copies behind its last block, from the first one on.

Equation: new layer i = old layer i mod L0, with L0 blocks before; `add` = L0 doubles the stack.

Hyperparameters: stacks (shell patterns), add (blocks for every stack).

When it fails: it changes the function, and the loss needs some hundred steps to heal, so late in a
run it costs more than it brings. The first copy reads the last block's output, which it has never
seen; there interleave is kinder. An empty stack has nothing to copy: take deepen=random first.

Evidence: best of four operators at 8e20 FLOPs (G_stack, figure 3: 49.1 % saved; zero 46.6 %).
Weights are copied, optimizer state of the copies starts empty (MIDAS, arXiv 2409.19044).

Reference: Du et al., Stacking Your Transformers (G_stack), arXiv 2405.15319.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.growth.operators.deepen import Copies
from progtrain.growth.operators.orders import Insertion, stack


@dataclass(frozen=True)
class DeepenStack(Copies):
    """`add` blocks in every stack that matches `stacks`; `add` = depth doubles the stack."""

    def order(self, length: int, add: int) -> list[Insertion]:
        return stack(length, add)
