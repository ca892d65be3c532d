"""Deepen by copies of the middle blocks, right behind them.

What: the `add` blocks in the middle of every stack that matches are repeated there.

Equation: with b = min(add, L0) and s = floor((L0 - b) / 2), copies of old layers s … s + b - 1 join
behind layer s + b - 1, from s on again where `add` is more than L0.

Hyperparameters: stacks (shell patterns), add (blocks for every stack).

When it fails: it changes the function. Of an even number of blocks the one nearer to the input is
the middle. An empty stack has nothing to copy.

Evidence: up to 40 % faster training of language models at similar perplexity, and better reasoning
(MIDAS, which copies blocks of several layers). Savings are not measured here.

Reference: Saunshi et al., On the Inductive Bias of Stacking (MIDAS), arXiv 2409.19044.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.growth.operators.deepen import Copies
from progtrain.growth.operators.orders import Insertion, middle


@dataclass(frozen=True)
class DeepenMiddle(Copies):
    """`add` copies of the middle blocks in every stack that matches `stacks`."""

    def order(self, length: int, add: int) -> list[Insertion]:
        return middle(length, add)
