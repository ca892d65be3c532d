"""Networks in shards by torch's `fully_shard` (FSDP2)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

from progtrain.flops import on_meta
from progtrain.hardware.shards import buffers_to, note


@dataclass(frozen=True)
class TorchShards:
    """torch's way: parameters are DTensors, and the network is called as it is."""

    device: torch.device
    world: int
    home: torch.device
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
        if self.offload:
            buffers_to(model, self.device)
        note(model, twin)

    def called(self, model: nn.Module) -> nn.Module:
        """The network itself."""
        return model

    def reduced(self, model: nn.Module) -> None:
        """Backward passes have left the gradients where they belong."""

    def stepped(self, model: nn.Module) -> None:
        """Parameters are what has been stepped."""

    def forget(self) -> None:
        """Nothing is held."""


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
