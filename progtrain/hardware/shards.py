"""A network whose weights lie in shards on several processes: torch's `fully_shard` (FSDP2).

Each process holds a part of every parameter, of its gradient and of what the optimizer remembers;
a block's parameters come together while it computes. Names stay as they are. Where a network is
grown, copied or stored it is whole for that time (`sharding.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from progtrain.flops import on_meta

# the network as plain modules on the meta device, by the network that is sharded
_plain: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


class InShardsError(Exception):
    """A network's values are asked for, and lie in shards: every process must take part."""


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def plain(model: nn.Module) -> nn.Module:
    """A network as plain modules: itself, or of one that is sharded its shapes without values."""
    return _plain.get(model, model)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every process; a collective call where it lies in shards."""
    if not isinstance(tensor, DTensor):
        return tensor
    shards: Any = tensor.detach()
    found = shards.full_tensor()
    return getattr(found, "wait", lambda: found)()  # of a collective that may still be under way


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(full: Tensor, tensor: Tensor) -> Tensor:
    """`full`, which every process has, in shards as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return full
    mesh, places = tensor.device_mesh, tensor.placements
    made = distribute_tensor(full, mesh, places, src_data_rank=None)
    mine, device = made.to_local(), tensor.to_local().device
    if mine.device == device:
        return made
    told: Any = {"shape": full.shape, "stride": full.stride(), "run_check": False}
    return DTensor.from_local(mine.to(device), mesh, places, **told)  # it waits in the CPU's memory


@dataclass(frozen=True)
class Shards:
    """How networks are sharded."""

    device: torch.device
    world: int
    home: torch.device  # where a network is whole, while it is grown, copied or put back
    offload: bool = False  # parameters, gradients and optimizer state wait in the CPU's memory

    def spread(self, model: nn.Module) -> None:
        """Shard a network in place; a plain one without values is kept aside.

        Blocks come to the device one after another, so it never holds more of the network than
        shards and one block that is whole.
        """
        twin = on_meta(model)
        mesh = init_device_mesh(self.device.type, (self.world,))
        policy = CPUOffloadPolicy() if self.offload else OffloadPolicy()
        if self.offload:
            model.to("cpu")
        for part in (*blocks(model), model):
            fully_shard(part, mesh=mesh, offload_policy=policy)
        for module in model.modules() if self.offload else ():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(self.device), name not in _lost(module))
        _plain[model] = twin

    def gathered(self, model: nn.Module, place: torch.device) -> nn.Module:
        """A whole and plain network of the same values at `place`, brought there tensor by tensor;
        the sharded one is left as it is."""
        made = copy.deepcopy(plain(model)).to_empty(device=place)
        made.train(model.training)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                parameter.copy_(whole(model.get_parameter(name)))
            for name, buffer in made.named_buffers():
                buffer.copy_(model.get_buffer(name))
        return made


def _lost(module: nn.Module) -> set[str]:
    """Buffers that are not stored."""
    return module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost blocks of containers that have parameters: what comes together at once."""
    for child in model.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            for block in child:
                if isinstance(block, nn.ModuleList | nn.Sequential):
                    yield from blocks(nn.Sequential(block))
                elif any(True for _ in block.children()) and any(True for _ in block.parameters()):
                    yield block
        else:
            yield from blocks(child)


@contextmanager
def without_sync(model: FSDPModule) -> Generator[None]:
    """Around a backward pass whose gradients are added up and not yet averaged."""
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
