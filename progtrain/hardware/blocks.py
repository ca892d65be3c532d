"""The blocks of a network, and what their calls do in training: run compiled, or twice.

Something stands in for a block's call, where `nn.Module.compile` puts it, so names and modules stay
as they are, and a copy of the network is plain. Hooks on a block run around what stands in.
Evaluation and whatever else only looks calls the block itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import nn

Forward = Callable[..., Any]  # of a block, which comes first


def stand_in(model: nn.Module, made: Callable[[type[nn.Module]], Forward]) -> None:
    """Let the blocks of `model` run in training as `made` says for each class."""
    by_class: dict[type[nn.Module], Forward] = {}
    for block in blocks(model):
        kind = type(block)
        if kind not in by_class:
            by_class[kind] = made(kind)
        block._compiled_call_impl = _StandIn(block, by_class[kind])  # pyright: ignore[reportPrivateUsage]


class _StandIn:
    """What a call of a block does."""

    def __init__(self, block: nn.Module, forward: Forward) -> None:
        self._block = ref(block)  # in a circle a network would outlive its growth on the device
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        block: Any = self._block()
        if not (block.training and torch.is_grad_enabled()):
            return block._call_impl(*args, **kwargs)
        if not (block._forward_pre_hooks or block._forward_hooks or block._backward_hooks):
            return self._forward(block, *args, **kwargs)
        block.__dict__["forward"] = partial(self._forward, block)
        try:
            return block._call_impl(*args, **kwargs)
        finally:
            del block.__dict__["forward"]


def blocks(model: nn.Module) -> list[nn.Module]:
    """Blocks of containers that hold modules of one class; the model itself where none does.

    Where such a block holds a stack of equal ones itself (a stage), they are taken, and what stands
    beside them: with more of them the stage would be another graph.
    """
    return list(_parts(model, inside=False)) or [model]


def _parts(module: nn.Module, inside: bool) -> Iterator[nn.Module]:
    inside = inside or _of_one_class(module)
    for child in module.children():
        if any(_of_one_class(each) and _alike(each) for each in child.modules()) or not inside:
            yield from _parts(child, inside)
        elif next(child.children(), None) is not None:
            yield child


def _of_one_class(container: nn.Module) -> bool:
    if not isinstance(container, nn.Sequential | nn.ModuleList):
        return False
    held = list(container)
    return len({type(b) for b in held}) == 1 and next(held[0].children(), None) is not None


def _alike(container: nn.Module) -> bool:
    shapes = [[(n, t.shape) for n, t in b.state_dict().items()] for b in container.children()]
    return all(each == shapes[0] for each in shapes)
