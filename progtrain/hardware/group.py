"""The processes of a run: who they are, and what they tell each other.

A run is one process or several (ranks) that take the same steps on different samples. Whatever is
decided must be decided by all of them alike, so decisions are rank 0's (`of_first`), numbers are
reduced (`reduced`), and what must be equal anyway is compared (`agree`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from progtrain.errors import EnvironmentProblem
from progtrain.hardware.meeting import connect, meet, roll_call

T = TypeVar("T")
_HOW: dict[str, Any] = {
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
}


@dataclass(frozen=True)
class Group:
    """One process; every method is what several would come to."""

    rank: int = 0
    world: int = 1
    local: int = 0  # of the ranks on this machine

    @property
    def first(self) -> bool:
        """Whether this is the process that shows, stores and decides."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` consecutive things are this rank's; the first ranks take what is over.

        Slices of all ranks are disjoint, in the order of ranks, and may be empty.
        """
        each, over = divmod(count, self.world)
        start = self.rank * each + min(self.rank, over)
        return slice(start, start + each + (self.rank < over))

    def some(self, count: int) -> slice:
        """The same, and the first of them where it would be empty."""
        mine = self.share(count)
        return mine if mine.stop > mine.start else slice(0, 1)

    def of_first(self, value: T) -> T:
        """What rank 0 gives; a collective call."""
        return value

    def gathered(self, value: T) -> list[T]:
        """What each rank gives, in the order of ranks; a collective call."""
        return [value]

    def reduced(self, tensor: Tensor, how: str) -> Tensor:
        """Over all ranks by `how`: sum, max, min, or cat (along dimension 0); the given tensor is
        left alone, and the same bits come to every rank."""
        return tensor

    def send_first(self, tensors: list[Tensor]) -> None:
        """Overwrite `tensors` with those of rank 0."""

    def mean(self, number: Tensor) -> Tensor:
        """Over all ranks, left on the device."""
        return number

    def beat(self, seconds: float, asked: bool) -> tuple[float, bool]:
        """After a step: rank 0's seconds of it, and whether any rank is asked to stop."""
        return seconds, asked

    def anyone(self, wants: bool) -> bool:
        """Whether any rank does."""
        return wants

    def barrier(self) -> None:
        """Wait for all."""

    def close(self) -> None:
        """Leave; the last call, where all has gone well."""


@dataclass(frozen=True)
class Joined(Group):
    """A process of a `torch.distributed` group, whose CPU tensors travel by gloo."""

    def of_first(self, value: T) -> T:
        held = [value]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def gathered(self, value: T) -> list[T]:
        held: list[Any] = [None] * self.world
        dist.all_gather_object(held, value)
        return held

    def reduced(self, tensor: Tensor, how: str) -> Tensor:
        if how == "cat":
            return torch.cat([part.to(tensor.device) for part in self.gathered(tensor.cpu())])
        found = tensor.clone()
        dist.all_reduce(found, _HOW[how])
        return found

    def send_first(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def beat(self, seconds: float, asked: bool) -> tuple[float, bool]:
        # a sum in which only rank 0 tells seconds
        told = torch.tensor([seconds if self.first else 0.0, float(asked)], dtype=torch.float64)
        dist.all_reduce(told)
        seconds, anyone = told.tolist()
        return seconds, anyone > 0

    def mean(self, number: Tensor) -> Tensor:
        return self.reduced(number, "sum") / self.world

    def anyone(self, wants: bool) -> bool:
        told = torch.tensor(int(wants))
        dist.all_reduce(told)
        return bool(told)

    def barrier(self) -> None:
        dist.all_reduce(torch.zeros(1))

    def close(self) -> None:
        self.barrier()  # without it gloo may abort as it ends
        dist.destroy_process_group()


def agree(group: Group, what: str, value: object) -> None:
    """Raise `EnvironmentProblem` on every rank where `value` is not the same on all."""
    told = group.gathered(repr(value))
    others = [rank for rank, each in enumerate(told) if each != told[0]]
    if others:
        raise EnvironmentProblem(
            f"The processes disagree about {what}: rank 0 has {told[0]:.200}, rank {others[0]} has"
            f" {told[others[0]]:.200}. Nothing was changed; the last checkpoint is whole. Are all"
            " processes of the same version, and do they read the same files?"
        )


def joined(device_type: str, timeout: float) -> Joined:
    """Join the group that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT tell of.

    Processes that share a file can meet there instead: PROGTRAIN_STORE=<path>.
    `timeout`: seconds after which a rank that waits for another gives up. A second call finds the
    group that the first has joined.
    """
    rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    gpus = device_type == "cuda"
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"

    def begin() -> None:
        if gpus:  # a thread has a current device of its own
            torch.cuda.set_device(local)
        patience = timedelta(seconds=timeout)
        dist.init_process_group(backend, None, patience, world_size=world, rank=rank, store=store)

    if gpus:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        file = os.environ.get("PROGTRAIN_STORE")
        store = FileStore(file, world) if file else meet(rank, timeout)
        roll_call(store, rank, world, timeout)
        connect(begin, rank)
    return Joined(rank, world, local)
