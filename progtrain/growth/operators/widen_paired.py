"""Widen by pairs of units that cancel: (V, V) is computed and (Z, -Z) is read.

What: new units come in pairs with equal random incoming weights and opposite random outgoing ones,
so the pair adds nothing, yet both sides are non-zero and both learn from the first step: the
gradients of the two V are opposite, which parts them at once. An odd unit is left unread.

Equation: y' = W f(U x) + Z f(V x) - Z f(V x), V and Z normal with the deviation of the old weights.
Exact for any f, any norm of single units (batch norm) and any attention head.

Hyperparameters: spaces, factor, size; scale, the size of Z relative to the old outgoing weights.

When it fails: under a norm over the units (layer, RMS) the two would have to be padding, so there
it is widen=zero. There is no noise that keeps it exact: the two V must be equal for any f. Weight
decay and an optimizer with a sign (Lion) keep a pair more alike than Adam does.

Evidence: exact to 6e-15 in float64 (shared notes, section 6); never the best operator at scale in
the literature, on par with random ones under a learning rate for each age (Yuan et al.).

Reference: Yuan et al., Accelerated Training via Incrementally Growing Neural Networks using
Variance Transfer and Learning Rate Adaptation, arXiv 2306.12700.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, widened, zero_consumers
from progtrain.growth.operators.widen import check_widen, padded
from progtrain.growth.operators.widen_random import fill
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Role, WidenSpace


def mirrored(new: Tensor, dim: int, sign: float) -> Tensor:
    """Every second entry along `dim` is `sign` × the one before; with −1 an odd last one is 0."""
    moved = new.movedim(dim, 0).clone()
    paired = 2 * (len(moved) // 2)
    moved[1:paired:2] = sign * moved[0:paired:2]
    if sign < 0:
        moved[paired:] = 0.0
    return moved.movedim(0, dim)


def pair_rows(model: nn.Module, change: WidenSpace) -> None:
    """The second unit of a pair is computed as the first."""
    for part in change.parts:
        if part.role is not Role.CONSUMER:
            tensor, slab = tensor_of(model, part.tensor), change.slab(part, change.old)
            slab.write(tensor, mirrored(slab.read(tensor), part.dim, 1.0))


def pair_columns(model: nn.Module, change: WidenSpace, scale: float) -> None:
    """The second unit of a pair is read as the first's opposite."""
    for part in change.parts:
        if part.role is Role.CONSUMER:
            tensor, slab = tensor_of(model, part.tensor), change.slab(part, change.old)
            slab.write(tensor, scale * mirrored(slab.read(tensor), part.dim, -1.0))


def cancels(change: WidenSpace) -> bool:
    """Whether opposite columns can silence a pair: no norm mixes units, no weight is tied."""
    tied = any(part.role is Role.TIED for part in change.parts)
    return change.norm is None and not change.inexact and not tied


@dataclass(frozen=True)
class WidenPaired:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    scale: float = 1.0  # outgoing weights of new units over old ones
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)
        require(0 < self.scale <= 10, "scale", self.scale, "in (0, 10]")

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor, self.size)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill(grown, generator)
        paired = [change for change in widened(grown.edit) if cancels(change)]
        others = [change for change in widened(grown.edit) if not cancels(change)]
        for change in paired:
            pair_rows(grown.model, change)
        for change in paired:
            pair_columns(grown.model, change, self.scale)
        zero_consumers(grown.model, [slab for change in others for slab in change.slabs()])
        calibrate(grown.model, grown.edit.slabs(), (), grown.x)

    def flops(self, grown: Grown) -> float:
        return 0.0
