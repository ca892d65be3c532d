"""The calls of a network's blocks in training, found without computing, and each compiled once.

A block is made on the device by itself, with values that mean nothing, and runs forward and
backward, so that inductor keeps both graphs on disk. Whoever compiles the same graphs later, in
another process too, finds them there.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # pyright: ignore[reportPrivateUsage]
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import (  # pyright: ignore[reportPrivateUsage]
    tree_leaves,
    tree_map_only,
)

from progtrain.ahead.order import Like, Look, Order
from progtrain.growth.controls import WARMING, Controls
from progtrain.hardware.blocks import Forward, stand_in
from progtrain.hardware.engine import Engine
from progtrain.run import Phase

_BUCKET = 25 * 2**20  # bytes of gradients that DDP sends at once, by default
_PLAIN = (bool, int, float, str, tuple, type(None))  # attributes that code of a block may look at


@dataclass(frozen=True)
class Call:
    """A call of a block; tensors are `Like`s."""

    block: str  # its name
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def compile_all(order: Order, engine: Engine) -> Iterator[Call]:
    """Compile every call that the order's networks make and that differs from those before."""
    done = set[object]()
    for look in order.looks:
        look = _frozen(look, order)
        found = {key: call for key, call in _calls(look, order, engine).items() if key not in done}
        done |= found.keys()
        for call in found.values():
            _compile(call, look, order, engine)
            yield call


def _frozen(look: Look, order: Order) -> Look:
    """The same with frozen parameters by name: which they are must not be asked of fake tensors."""
    controls = Controls(look.model, look.events, order.warmup, look.frozen)
    names = controls.frozen
    controls.lift()
    warming = [replace(e, phase=Phase.WARMUP) if e.phase in WARMING else e for e in look.events]
    return replace(look, events=tuple(warming), frozen=names)


def _calls(look: Look, order: Order, engine: Engine) -> dict[object, Call]:
    """The calls of one forward pass, by what their graphs depend on."""
    found = dict[object, Call]()
    model = copy.deepcopy(look.model)
    names = {id(module): name for name, module in model.named_modules()}

    def noting(kind: type[nn.Module]) -> Forward:
        def forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
            told = tree_map_only(Tensor, Like.of, (args, kwargs))
            found.setdefault((_key(block), repr(told)), Call(names[id(block)], *told))
            return kind.forward(block, *args, **kwargs)

        return forward

    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device=engine.device).train()
        Controls(model, look.events, order.warmup, look.frozen)
        stand_in(model, noting)
        with engine.autocast(), torch.enable_grad():
            model(order.x.made(engine.device))
    return found


def _key(block: nn.Module) -> object:
    """What a block's graph depends on beside its inputs."""
    tensors = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    parts = [
        (
            type(module),
            len(module._forward_pre_hooks),  # pyright: ignore[reportPrivateUsage]
            len(module._forward_hooks),  # pyright: ignore[reportPrivateUsage]
            repr({name: each for name, each in vars(module).items() if isinstance(each, _PLAIN)}),
        )
        for module in block.modules()
    ]
    return tuple(parts), repr({name: Like.of(each) for name, each in tensors.items()})


def _compile(call: Call, look: Look, order: Order, engine: Engine) -> None:
    """Make the block and what goes into it, run it forward and backward, and forget both."""
    device, block = engine.device, look.model.get_submodule(call.block)
    _fill(block.to_empty(device=device).train())
    controls = Controls(look.model, look.events, order.warmup, look.frozen, device)
    args, kwargs = tree_map_only(Like, lambda like: like.made(device), (call.args, call.kwargs))
    try:
        with engine.autocast(), torch.enable_grad(), as_replica(order.replicated):
            made = engine.forward(type(block))(block, *args, **kwargs)
        outputs = [t for t in tree_leaves(made) if isinstance(t, Tensor) and t.requires_grad]
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])
    finally:
        controls.lift()
        block.to("meta")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _fill(block: nn.Module) -> None:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.02)
        for buffer in block.buffers():
            buffer.zero_()  # of indices the first, which is always there


@contextmanager
def as_replica(yes: bool) -> Generator[None]:
    """Around forward passes that torch shall compile as if they were DDP's."""
    ddp: Any = DistributedDataParallel
    before = ddp._active_ddp_module
    ddp._active_ddp_module = SimpleNamespace(bucket_bytes_cap=_BUCKET) if yes else before
    try:
        yield
    finally:
        ddp._active_ddp_module = before
