"""Widen with random units, read with random weights: the plainest growth.

What: new rows and columns are drawn as large as the old ones are. Alone it changes the function; a
warmup that starts silent (zero_init, a ramp) makes it exact and leaves both sides of every new unit
non-zero, so that everything learns from the first step.

Equation: y' = W f(U x) + Z f(V x), V and Z normal with the deviation of U and W. Keys start at zero
and norms are padded as by widen=zero.

Hyperparameters: spaces, factor, size.

When it fails: without a warmup the loss jumps by as much as if the new part were noise, and what
was learned behind it must adapt.

Evidence: growing a language model's width at random costs compute instead of saving it (G_stack,
arXiv 2405.15319, figure 3: −13.8 %).

Reference: Chen et al., Net2Net, arXiv 1511.05641 (its baseline RandomPad).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, fill_random, pad, widened
from progtrain.growth.operators.widen import check_widen, padded
from progtrain.growth.widen_space import Role


@dataclass(frozen=True)
class WidenRandom:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor, self.size)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill(grown, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0


def fill(grown: Grown, generator: torch.Generator) -> None:
    """Random values for all new units, but for what norms and keys ask for."""
    changes = widened(grown.edit)
    for change in changes:
        fill_random(grown, change, [Role.CONSUMER], generator)
    for change in changes:
        fill_random(grown, change, set(Role) - {Role.CONSUMER}, generator)
    for change in changes:
        pad(grown.model, change, generator)
    calibrate(grown.model, grown.edit.slabs(), (), grown.x)
