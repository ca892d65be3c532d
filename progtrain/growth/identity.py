"""Make a block the identity, so that inserting it changes nothing.

A residual block is silenced: the last parameters of each branch that is added to the trunk become
zero (branches.py), as the gain of the last batch norm has been in residual networks since
Goyal et al. (arXiv 1706.02677). A plain block (one square layer, perhaps a batch norm, an
idempotent activation) gets the identity kernel of Net2DeeperNet (Chen et al., arXiv 1511.05641).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import GrowthError
from progtrain.growth.branches import branch_ends
from progtrain.growth.grow import Grown
from progtrain.growth.inserted import native, silence_within
from progtrain.growth.inserted import silence as silence_inserted
from progtrain.growth.newborn import evaluate, input_of, zero_consumers


def silence_newborn(grown: Grown) -> None:
    """Take every new unit's outgoing weights to zero, every new block to the identity, and every
    new module to zero."""
    zero_consumers(grown.model, grown.edit.slabs())
    for name in grown.edit.blocks():
        block = grown.model.get_submodule(name)
        given = input_of(grown.model, block, grown.x)
        make_identity(block, *given.args, **given.kwargs)
    for name in grown.edit.inserted():
        silence_inserted(grown.model.get_submodule(name))


def silence(block: nn.Module, *args: Any, **kwargs: Any) -> bool:
    """Zero the end of every residual branch; False where the block has none."""
    ends = branch_ends(block, *args, **kwargs)
    for end in ends:
        end.detach().zero_()
    return bool(ends)


def make_identity(block: nn.Module, x: Tensor, *others: Any, **named: Any) -> None:
    """Change `block`, called as given, so that it returns `x` (batch, ...)."""
    if not silence(block, x, *others, **named):
        silence_within(block)
        _dirac(block, x)
    out = evaluate(block, x.clone(), *others, **named)
    missed = (out - x).abs().max() / x.abs().max().clamp_min(1e-12)
    if missed > 1e-4:
        raise GrowthError(
            f"A {type(block).__name__} cannot be made the identity: it misses by {missed:.2g} of"
            " its input (a layer norm, or an activation that is not idempotent, stands in the way)."
            " Try deepen=random with a ramp (warmup=cosine_ramp), which blends any block in."
        )


def _dirac(block: nn.Module, x: Tensor) -> None:
    layers = [m for m in native(block) if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    square = len(layers) == 1 and layers[0].weight.shape[0] == layers[0].weight.shape[1]
    if not square:
        raise GrowthError(
            f"A {type(block).__name__} cannot be made the identity: it is neither residual nor one"
            " square layer. Try deepen=random with a ramp (warmup=cosine_ramp)."
        )
    layer = layers[0]
    if isinstance(layer, nn.Linear):
        nn.init.eye_(layer.weight)
    else:
        nn.init.dirac_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    x_BC = x.transpose(1, -1).flatten(0, -2) if x.ndim > 2 else x
    for norm in native(block):
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.affine:
            _undo(norm, x_BC)


def _undo(norm: nn.BatchNorm1d | nn.BatchNorm2d, x_BC: Tensor) -> None:
    """Gain and shift that take back the normalisation: exact in evaluation, and in training as far
    as a batch has the statistics of this one."""
    mean_C, variance_C = x_BC.mean(0), x_BC.var(0, correction=0)
    with torch.no_grad():
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.copy_(mean_C)
            norm.running_var.copy_(variance_C)
        norm.weight.copy_((variance_C + norm.eps).sqrt())
        norm.bias.copy_(mean_C)
