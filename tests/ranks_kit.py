"""Runs of several processes (gloo, on the CPU) in a test: forked from a server that has torch
loaded, so that one costs tenths of a second."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from progtrain.hardware.engine import Engine, Settings
from progtrain.hardware.group import Joined, joined
from progtrain.hardware.torch_shards import TorchShards

SECONDS = 60.0  # after which a rank that waits gives up


@dataclass(frozen=True)
class Ranks:
    """Hardware of a process that is a rank; the environment says which."""

    shards: bool = False
    activation_checkpointing: bool = False

    def open(self) -> Engine:
        settings, cpu = (
            Settings("fp32", False, True, 1, True, self.activation_checkpointing),
            torch.device("cpu"),
        )
        joined = group()
        return Engine(
            cpu, settings, joined, TorchShards(cpu, joined.world, cpu) if self.shards else None
        )


def group() -> Joined:
    return joined("cpu", SECONDS)


@dataclass
class Told:
    """What came of a rank."""

    value: Any = None
    error: str = ""  # the traceback
    kind: str = ""  # name of the exception's class


class Pool:
    """Processes that wait for functions to run as ranks, so that only the first has to begin."""

    def __init__(self, world: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ranks_kit", "run_kit", "progtrain.job"])
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        for rank in range(world):
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Told]:
        with tempfile.TemporaryDirectory() as place:
            for pipe in self.pipes:
                pipe.send((place, function, args))
            return [_received(pipe) for pipe in self.pipes]

    def end(self) -> None:
        for process in self.processes:
            process.kill()


_pools: dict[int, Pool] = {}


def ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Told]:
    """What `function(*args)` came to on each of `world` ranks; it must be importable."""
    pool = _pools[world] = _pools.get(world) or Pool(world)
    told = pool.run(function, args)
    if any(each.error for each in told):  # whoever still waits for another
        _pools.pop(world).end()
    return told


def values(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """The same, where no rank may fail."""
    told = ranks(world, function, *args)
    assert not any(each.error for each in told), "\n".join(each.error for each in told)
    return [each.value for each in told]


def _received(pipe: Any) -> Told:
    try:
        return pipe.recv() if pipe.poll(SECONDS * 2) else Told(error="hangs", kind="Hangs")
    except EOFError:
        return Told(error="died", kind="Died")


def _serve(rank: int, world: int, pipe: Any) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no name of the machine is looked up
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    while True:
        place, function, args = pipe.recv()
        os.environ["PROGTRAIN_STORE"] = f"{place}/store"
        try:
            told = Told(function(*args))
        except BaseException as error:
            told = Told(error=traceback.format_exc(), kind=type(error).__name__)
        if dist.is_initialized() and not told.error:
            dist.barrier()
            dist.destroy_process_group()
        pipe.send(told)
