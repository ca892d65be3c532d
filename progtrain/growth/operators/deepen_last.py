"""Deepen by copies of the last block behind it.

What: the last block of every stack that matches is repeated `add` times.

Equation: new layer L0 - 1 + i = old layer L0 - 1, i = 1 … add.

Hyperparameters: stacks (shell patterns), add (blocks for every stack).

When it fails: it changes the function, and all copies begin alike, far from what the depth below
them does. It is the weakest of the copying orders; it is here to be compared with.

Evidence: clearly worse than stack and interleave (Bu et al., arXiv 2511.04981).

Reference: Gong et al., Efficient Training of BERT by Progressively Stacking, ICML 2019, for
repeating trained layers; Bu et al. for this order.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.growth.operators.deepen import Copies
from progtrain.growth.operators.orders import Insertion, last


@dataclass(frozen=True)
class DeepenLast(Copies):
    """`add` copies of the last block in every stack that matches `stacks`."""

    def order(self, length: int, add: int) -> list[Insertion]:
        return last(length, add)
