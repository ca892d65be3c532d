"""Widen with random units, read with random weights: the plainest growth.

New rows and columns are normal with the standard deviation of the old ones. Alone it changes the
function; a warmup that starts silent (zero_init, a ramp) makes it exact at the growth and leaves
both sides of every new unit non-zero, so that everything learns from the first step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit, Role
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, fill_random, mean_pad, widened
from progtrain.growth.operators.widen import check_widen, padded


@dataclass(frozen=True)
class WidenRandom:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor)

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        changes = widened(grown.edit)
        for change in changes:
            fill_random(grown, change, [Role.CONSUMER], generator)
        for change in changes:
            fill_random(grown, change, set(Role) - {Role.CONSUMER}, generator)
        for change in changes:
            if change.rescaled_norms:
                mean_pad(grown.model, change, generator)
        calibrate(grown.model, grown.edit.slabs(), (), grown.x)
