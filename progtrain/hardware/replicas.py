"""Replicas of one network on several processes: each learns of its samples, all take one step.

torch's `DistributedDataParallel` averages the gradients while they are computed. It knows the
parameters that it was made for and no others, without an error, so a new one is made whenever the
network or what is frozen of it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from progtrain.data.sets import mixed
from progtrain.hardware.group import Group, agree
from progtrain.hardware.norms import OverAll, normalises
from progtrain.hardware.shards import Shards, is_sharded
from progtrain.hardware.torch_shards import without_sync
from progtrain.optimizers.group import OptimizerSet

_FORWARD = 0xD157  # keeps these random numbers apart from whatever else a seed is mixed with

_NAMES = signature(DistributedDataParallel.__init__).parameters
# whether buffers are rank 0's in every forward pass, as torch calls it since 2.14 and before
_SYNC_BUFFERS = next(n for n in ("forward_sync_buffers", "broadcast_buffers") if n in _NAMES)


class Replicas:
    """What training calls in place of the network, as long as the network is what it was."""

    def __init__(
        self,
        group: Group,
        device: torch.device,
        whole_batch: bool = True,
        shards: Shards | None = None,
    ) -> None:
        self._group, self._device, self._whole_batch = group, device, whole_batch
        self._shards = shards
        self._made_for: tuple[ReferenceType[nn.Module], tuple[str, ...]] | None = None
        self._wrapper: nn.Module | None = None
        self._norms = False  # whether the network looks at its whole batch

    def forget(self) -> None:
        """Hold nothing of a network that is about to go."""
        self._wrapper = self._made_for = None

    def over_all(self) -> AbstractContextManager[object]:
        """Around the forward passes of `of`: what looks at a batch sees that of all processes."""
        return OverAll() if self._norms else nullcontext()

    def of(self, model: nn.Module, unused: Callable[[], bool]) -> nn.Module:
        """The network, with its gradients averaged over all processes in `backward`.

        `unused` tells whether the loss leaves parameters out that would learn; asked once for each
        network.
        """
        if self._group.world == 1:
            return model
        learning = tuple(name for name, p in model.named_parameters() if p.requires_grad)
        known = self._made_for
        if known is None or known[0]() is not model or known[1] != learning:
            self._wrapper = None  # frees the buckets of the old one first
            self._made_for = ref(model), learning
            self._norms = self._whole_batch and normalises(model)
            self._wrapper = self._made(model, unused) if learning else model
        assert self._wrapper is not None
        return self._wrapper

    def _made(self, model: nn.Module, unused: Callable[[], bool]) -> nn.Module:
        if self._shards is not None and is_sharded(model):
            return self._shards.called(model)
        return self._wrapped(model, unused)

    def _wrapped(self, model: nn.Module, unused: Callable[[], bool]) -> nn.Module:
        indices = [self._device.index or 0] if self._device.type == "cuda" else None
        buffers: Any = {_SYNC_BUFFERS: not self._whole_batch}
        return DistributedDataParallel(
            model,
            device_ids=indices,
            **buffers,
            find_unused_parameters=unused(),
            gradient_as_bucket_view=True,
        )


def unsynchronised(called: nn.Module) -> AbstractContextManager[object]:
    """Around a forward and a backward whose gradients are added up and not yet averaged."""
    if isinstance(called, FSDPModule):
        return without_sync(called)
    wrapped = isinstance(called, DistributedDataParallel)
    return called.no_sync() if wrapped else nullcontext()


def leaves_out(loss: Tensor, model: nn.Module) -> bool:
    """Whether a parameter that would learn has no part in `loss`."""
    learning = [p for p in model.parameters() if p.requires_grad]
    found: Any = torch.autograd.grad(loss, learning, allow_unused=True)
    return any(gradient is None for gradient in found)


@contextmanager
def own_numbers(group: Group, seed: int, position: int) -> Generator[None]:
    """Around the forward passes of a step: random numbers that no other process draws, such as
    those of dropout; afterwards all have the same again. They follow from the seed and the place in
    the stream of samples, so a resume needs none of them."""
    if group.world == 1:
        yield
        return
    common = mixed(mixed(seed, _FORWARD), position)
    torch.manual_seed(mixed(common, 1 + group.rank))
    yield
    torch.manual_seed(common)


def equalise(group: Group, networks: list[nn.Module], optimizer: OptimizerSet) -> None:
    """Every tensor of every process as rank 0 has it; raises `EnvironmentProblem` where processes
    have not even the same names and shapes."""
    if group.world == 1:
        return
    tensors: dict[str, Tensor] = {}
    for number, network in enumerate(networks):
        tensors |= {f"{number}.{n}": t for n, t in network.state_dict(keep_vars=True).items()}
    for name in optimizer.parameters:
        state = optimizer.state_of(name)
        tensors |= {f"{name}/{key}": tensor for key, tensor in state.items()}
    kinds = {name: (tuple(t.shape), str(t.dtype)) for name, t in tensors.items()}
    agree(group, "the network", sorted(kinds.items()))
    group.send_first([tensors[name].detach() for name in sorted(tensors)])
