"""Make a block the identity, so that inserting it changes nothing.

A residual block is silenced: the last layer of each branch that is added to the trunk becomes zero
(the gain of its batch norm where there is one), as in operators for residual networks since
Goyal et al. (arXiv 1706.02677). A plain block (one square layer, perhaps a batch norm, an
idempotent activation) gets the identity kernel of Net2DeeperNet (Chen et al., arXiv 1511.05641).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from progtrain.errors import GrowthError
from progtrain.growth.grow import Grown
from progtrain.growth.newborn import evaluate, input_of, zero_consumers

_LAYERS = ("linear", "conv1d", "conv2d", "batch_norm", "layer_norm")
_KEEPS = ("relu", "relu_", "dropout", "contiguous", "clone", "identity")
_ADDS = ("add", "add_", "__radd__")


def silence_newborn(grown: Grown) -> None:
    """Take every new unit's outgoing weights to zero, and every new block to the identity."""
    zero_consumers(grown.model, grown.edit.slabs())
    for name in grown.edit.blocks():
        block = grown.model.get_submodule(name)
        make_identity(block, input_of(grown.model, block, grown.x))


def silence(block: nn.Module, x: Tensor) -> bool:
    """Zero the last layer of every residual branch; False where the block has none."""
    finder = _Branches(x)
    with finder:
        evaluate(block, x)
    for tensor in finder.ends:
        tensor.detach().zero_()
    return bool(finder.ends)


def make_identity(block: nn.Module, x: Tensor) -> None:
    """Change `block`, which reads `x` (batch, ...), so that it returns its input."""
    if not silence(block, x):
        _dirac(block, x)
    missed = (evaluate(block, x) - x).abs().max() / x.abs().max().clamp_min(1e-12)
    if missed > 1e-4:
        raise GrowthError(
            f"A {type(block).__name__} cannot be made the identity: it misses by {missed:.2g} of"
            " its input (a layer norm, or an activation that is not idempotent, stands in the way)."
            " Try deepen=random with a ramp (warmup=cosine_ramp), which blends any block in."
        )


class _Branches(TorchFunctionMode):
    """Finds parameters of the layers whose output is added to what came through unchanged."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.trunk = {id(x)}
        self.made_by: dict[int, list[Tensor]] = {}
        self.ends: list[Tensor] = []
        self._alive: list[Any] = [x]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        self._alive.append(out)
        if name in _LAYERS:
            given = [*args[1:], *(kwargs or {}).values()]
            self.made_by[id(out)] = [p for p in given if isinstance(p, nn.Parameter)]
        elif name in _KEEPS:
            self._pass_on(args[0], out)
        elif name in _ADDS:
            self._join(args[0], args[1], out)
        return out

    def _pass_on(self, before: Tensor, after: Tensor) -> None:
        if id(before) in self.trunk:
            self.trunk.add(id(after))
        if id(before) in self.made_by:
            self.made_by[id(after)] = self.made_by[id(before)]

    def _join(self, a: Any, b: Any, out: Tensor) -> None:
        for trunk, branch in ((a, b), (b, a)):
            if id(trunk) in self.trunk and id(branch) in self.made_by:
                self.ends += self.made_by[id(branch)]
                self.trunk.add(id(out))


def _dirac(block: nn.Module, x: Tensor) -> None:
    layers = [m for m in block.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
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
    for norm in block.modules():
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
