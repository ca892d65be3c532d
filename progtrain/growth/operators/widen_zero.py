"""Widen with random units that nothing reads yet.

What: new units are computed by random weights, and what reads them starts at zero.

Equation: y' = W f(U x) + 0 f(V x), V normal with the deviation of the old weights. Under a layer
norm new units are the mean of the old ones, under an RMS norm zero, with gains × √(old/new).

Hyperparameters: spaces, factor, size.

When it fails: the outgoing weights must move before the incoming ones get a gradient, so new units
learn one step late, and slowly under a small learning rate. Networks with a group norm, or a layer
norm behind a nonlinearity, change whatever is filled in.

Evidence: exact to 1e-14 in float64 for any factor. Width by zeros is the worst of four width
operators when a language model grows once (G_stack, arXiv 2405.15319, figure 3: −17.9 %).

Reference: the baseline of Evci et al., GradMax, arXiv 2201.05125; padding of norms after LEMON,
arXiv 2310.07999, and Gesmundo & Maile, arXiv 2308.06103.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import zero_consumers
from progtrain.growth.operators.widen import check_widen, padded
from progtrain.growth.operators.widen_random import fill


def fill_silent(grown: Grown, generator: torch.Generator) -> None:
    """Random units that nothing reads."""
    fill(grown, generator)
    zero_consumers(grown.model, grown.edit.slabs())


@dataclass(frozen=True)
class WidenZero:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor, self.size)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill_silent(grown, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0
