"""Deepen by copies that sit directly behind their originals.

What: blocks are repeated in place, so that what a copy reads is what its original has made.

Equation: new layer i = old layer floor(i L0 / L), i = 0 … L - 1, with L0 blocks before and L after.

Hyperparameters: stacks (shell patterns), add (blocks for every stack); `add` = L0 doubles every
block, fewer repeat some of them, evenly over the depth.

When it fails: it changes the function: every residual branch that is repeated is added twice. See
interleave_half for the first-order remedy. An empty stack has nothing to copy.

Evidence: better than stack where the source has converged well (arXiv 2510.08008); equal to it
under Muon (Bu et al., arXiv 2511.04981).

Reference: Chang et al., Multi-level Residual Networks from Dynamical Systems View, arXiv
1710.10348.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.growth.operators.deepen import Copies
from progtrain.growth.operators.orders import Insertion, interleave


@dataclass(frozen=True)
class DeepenInterleave(Copies):
    """`add` blocks in every stack that matches `stacks`, spread over all of its depth."""

    def order(self, length: int, add: int) -> list[Insertion]:
        return interleave(length, add)
