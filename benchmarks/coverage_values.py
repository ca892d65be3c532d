"""Values for the networks of `coverage.py`: as after some training, so that rounding stays small.

A deep network with random branches is chaotic: what rounding does to its first layer is as large
as its output at the end. Training from zero-initialised gains keeps residual branches small; so
do we, and measure what is left of it (`noise`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from progtrain.growth.branches import branch_ends
from progtrain.growth.newborn import evaluate, inputs_of

BRANCH = 0.2  # factor on every residual branch


def randomise(model: nn.Module, images: Callable[[int], Tensor]) -> None:
    """Nothing is zero, one, or the statistics of nothing, and residual branches are small."""
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

    _parameters(model, draw)
    _calm(model, images(2))
    _statistics(model, images, draw)
    model.eval()


def noise(model: nn.Module, x: Tensor) -> float:
    """How far the output moves when the input is rounded a few times more."""
    generator = torch.Generator().manual_seed(1)
    steps = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    before = evaluate(model, x)
    after = evaluate(model, x * (1 + 4 * torch.finfo(x.dtype).eps * steps))
    return float((after - before).abs().max() / before.abs().max())


def _parameters(model: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and parameter.flatten()[:64].unique().numel() > 1:
                continue
            noise = draw(parameter)
            if float(parameter.abs().max()) == 0:
                parameter.copy_(0.1 * noise)
            elif parameter.numel() > 1 and float(parameter.std()) == 0:
                size = max(float(parameter.abs().max()), 0.1)
                parameter.copy_(size * (1 + 0.3 * noise.clamp(-2, 2)))
            elif name.endswith("bias"):
                parameter.add_(0.1 * float(parameter.std().nan_to_num()) * noise)


def _calm(model: nn.Module, x: Tensor) -> None:
    """Make every residual branch of every block that keeps its shape small, once."""
    composite = [m for m in model.modules() if m is not model and any(True for _ in m.children())]
    ends: dict[int, nn.Parameter] = {}
    for block, given in inputs_of(model, composite, x).items():
        if given.args and isinstance(given.args[0], Tensor):
            found = branch_ends(block, *given.args, homogeneous=True, **given.kwargs)
            ends |= {id(end): end for end in found}
    for end in ends.values():
        end.detach().mul_(BRANCH)


def _statistics(
    model: nn.Module, images: Callable[[int], Tensor], draw: Callable[[Tensor], Tensor]
) -> None:
    """Running statistics of batch norms: those of images, and a little beside them."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(max(4, 65536 // images(1)[0, 0].numel())))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        if norm.running_mean is not None and norm.running_var is not None:
            spread = norm.running_var.sqrt().clamp_min(1e-3)
            norm.running_mean += 0.1 * spread * draw(norm.running_mean)
            norm.running_var.copy_(spread**2 * (1 + 0.3 * draw(spread).clamp(-2, 2)))
