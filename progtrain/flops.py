"""FLOPs of training, counted by torch on the network as it is now."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from progtrain.growth.heads import outputs_by_head
from progtrain.hardware.shards import shape_of
from progtrain.objective import cross_entropy

_BATCH = 2  # batch norm needs two samples in training
_COUNTED: dict[tuple[Any, ...], float] = {}  # by architecture; a pure function's memory


def num_params(model: nn.Module) -> int:
    return sum(shape_of(p).numel() for p in model.parameters())


def training_flops(model: nn.Module, x: Tensor, frozen: Sequence[str] = ()) -> float:
    """FLOPs of one sample, forward and backward, by `torch.utils.flop_counter`.

    Matrix products, convolutions and attention are counted, elementwise work is not. Parameters
    named in `frozen` get no gradient, and backward passes that only they would need are not made.
    Counted once an architecture, without computing anything where the network runs on the meta
    device.
    """
    return counted(model, x, count_training, frozen)


def forward_flops(model: nn.Module, x: Tensor) -> float:
    """FLOPs of one sample, forward only, in evaluation mode: what a teacher costs."""
    return counted(model, x, _count_forward)


def check_flops(host: nn.Module, grown: nn.Module, x: Tensor) -> float:
    """FLOPs of the probe batch before and after a growth, which shows what it did to the output."""
    return len(x) * (forward_flops(host, x) + forward_flops(grown, x))


def counted(
    model: nn.Module,
    x: Tensor,
    count: Callable[[nn.Module, Tensor], float],
    frozen: Sequence[str] = (),
) -> float:
    """What `count` says of a copy of the network and a few samples; asked once an architecture."""
    trains = {n: p.requires_grad and n not in frozen for n, p in model.named_parameters()}
    key = (
        frozenset(name for name, each in trains.items() if not each),
        count.__name__,
        type(model),
        repr(model),  # strides and the like
        *((n, tuple(t.shape)) for n, t in model.state_dict().items()),
        tuple(x.shape[1:]),
    )
    if key not in _COUNTED:
        _COUNTED[key] = _measure(model, x, count, frozen)
    return _COUNTED[key]


def _measure(
    model: nn.Module,
    x: Tensor,
    count: Callable[[nn.Module, Tensor], float],
    frozen: Sequence[str],
) -> float:
    try:
        return count(_without(on_meta(model), frozen), x[:_BATCH].to("meta"))
    except (NotImplementedError, RuntimeError):  # it looks at values somewhere
        return count(_without(copy.deepcopy(model), frozen), x[:_BATCH])


def _without(model: nn.Module, frozen: Sequence[str]) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return model


def on_meta(model: nn.Module) -> nn.Module:
    """A copy on the meta device; its tensors are never copied, which a large network would feel."""
    empty: dict[int, object] = {id(b): b.to("meta") for b in model.buffers()}
    for p in model.parameters():
        empty[id(p)] = nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad)
    return copy.deepcopy(model, empty).to("meta")


def count_training(model: nn.Module, x: Tensor) -> float:
    """FLOPs of one sample, forward and backward, of this very network; its gradients are lost."""
    model.train()
    with (
        torch.enable_grad(),
        FlopCounterMode(display=False) as counter,
        outputs_by_head(model) as by_head,
    ):
        out = model(x)
        y = torch.zeros(out.shape[:-1], dtype=torch.long, device=x.device)
        losses = [cross_entropy(each, y) for each in (by_head(out) or {"": out}).values()]
        sum(losses[1:], start=losses[0]).backward()
    return counter.get_total_flops() / len(x)


def _count_forward(model: nn.Module, x: Tensor) -> float:
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() / len(x)
