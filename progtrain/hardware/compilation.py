"""torch.compile of a network that grows: blocks are compiled, and what was compiled stays.

A block is compiled by its class and shapes, so that one graph serves every block like it, at any
depth and after any growth; a growth compiles only the shapes that it brings. Each shape has a graph
of its own, as graphs for any shape are slower. Evaluation and whatever else only looks runs
eagerly: it would need graphs of its own.

Hooks on a block run outside its graph. Those on its layers are inside, and dynamo is told to guard
them: by default it takes it that hooks never change, and a ramp would be left out or never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any
from weakref import ref

import torch
from torch import nn

from progtrain.errors import require

MODES = ("default", "reduce-overhead", "max-autotune")
_GRAPHS = 1024  # of one block's code before dynamo gives up and runs it eagerly, with a log line


def check_mode(compile: bool | str) -> None:
    allowed = "false, true, " + ", ".join(MODES)
    hint = "true is default; reduce-overhead replays CUDA graphs, which helps small networks."
    require(isinstance(compile, bool) or compile in MODES, "compile", compile, allowed, hint)


def mode_of(compile: bool | str) -> str | None:
    """torch's word for a setting; None where nothing is compiled."""
    if isinstance(compile, bool):
        return "default" if compile else None
    return compile


def replays(mode: str | None) -> bool:
    """Whether outputs of blocks lie in memory that the next step's CUDA graphs overwrite."""
    return mode in ("reduce-overhead", "max-autotune")


def begin() -> None:
    """Forget what earlier jobs of this process compiled, and set dynamo's switches."""
    torch.compiler.reset()
    config: Any = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    config.recompile_limit = _GRAPHS
    config.accumulated_recompile_limit = 8 * _GRAPHS
    config.skip_nnmodule_hook_guards = False
    # with it kernels of convolutions come in a layout that torch 2.11's backward refuses
    inductor: Any = import_module("torch._inductor.config")
    inductor.layout_optimization = False


def compile_blocks(model: nn.Module, mode: str) -> None:
    """Let the blocks of `model` run compiled in training; a copy of it is not compiled."""
    by_class: dict[type[nn.Module], Callable[..., Any]] = {}
    for part in compiled_parts(model):
        kind = type(part)
        if kind not in by_class:
            by_class[kind] = torch.compile(kind.forward, mode=mode, dynamic=False)
        # the place where nn.Module.compile puts it: it stands in for calls, and is never copied
        part._compiled_call_impl = _Compiled(part, by_class[kind])  # pyright: ignore[reportPrivateUsage]


class _Compiled:
    """What a call of a block does."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
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


def compiled_parts(model: nn.Module) -> list[nn.Module]:
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
    blocks = list(container)
    return len({type(b) for b in blocks}) == 1 and next(blocks[0].children(), None) is not None


def _alike(container: nn.Module) -> bool:
    shapes = [[(n, t.shape) for n, t in b.state_dict().items()] for b in container.children()]
    return all(each == shapes[0] for each in shapes)


def count_graphs() -> int:
    """How many graphs dynamo has made in this process."""
    counted = torch._dynamo.utils.counters["stats"]  # pyright: ignore[reportPrivateUsage]
    return int(counted["unique_graphs"])
