"""Batch norm over the samples of all processes, so that the number of processes changes no result.

A process alone would normalise by its own share of the batch. torch's `SyncBatchNorm` is another
class of module and needs a GPU; here the call is answered, so networks and growth see the modules
that they know.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import (
    _BatchNorm,  # pyright: ignore[reportPrivateUsage]  # the base of all
)
from torch.overrides import TorchFunctionMode


def normalises(model: nn.Module) -> bool:
    """Whether anything in the network looks at its whole batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


class OverAll(TorchFunctionMode):
    """While it is on, batch norms in training look at the batch of all processes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each of them has a loss, and its gradient is that of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        dist.all_reduce(total := tensor.clone())
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        dist.all_reduce(total := gradients[0].clone())
        return total


def _summed(tensor: Tensor) -> Tensor:
    found: Any = _Sum.apply(tensor)
    return found


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """x_BC… over all processes: mean and variance are sums that torch reduces, and whose gradients
    it reduces in turn."""
    if not training:
        given = (input, running_mean, running_var, weight, bias)
        return F.batch_norm(*given, training, momentum, eps)
    x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    others = [0, *range(2, x.ndim)]
    count = _summed(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
    shape = (1, -1, *[1] * (x.ndim - 2))
    mean_C = _summed(x.sum(others)) / count
    centred = x - mean_C.reshape(shape)
    var_C = _summed(centred.square().sum(others)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.detach().to(running_mean), momentum)
            unbiased = var_C.detach() * count / (count - 1).clamp(min=1)
            running_var.lerp_(unbiased.to(running_var), momentum)
    out = centred * torch.rsqrt(var_C + eps).reshape(shape)
    out = out if weight is None else out * weight.reshape(shape)
    out = out if bias is None else out + bias.reshape(shape)
    return out.to(input.dtype)
