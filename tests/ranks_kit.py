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

from progtrain.hardware.engine import Engine, Settings
from progtrain.hardware.group import Joined, joined

SECONDS = 60.0  # after which a rank that waits gives up


@dataclass(frozen=True)
class Ranks:
    """Hardware of a process that is a rank; the environment says which."""

    threads: int = 1

    def open(self) -> Engine:
        return Engine(torch.device("cpu"), Settings("fp32", False, True, 1, True), group())


def group() -> Joined:
    return joined("cpu", SECONDS)


@dataclass
class Told:
    """What came of a rank."""

    value: Any = None
    error: str = ""  # the traceback
    kind: str = ""  # name of the exception's class


def ranks(world: int, function: Callable[..., Any], *args: Any) -> list[Told]:
    """What `function(*args)` came to on each of `world` ranks; it must be importable."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ranks_kit", "run_kit"])
    with tempfile.TemporaryDirectory() as place:
        pipes = [context.Pipe(duplex=False) for _ in range(world)]
        processes = [
            context.Process(target=_rank, args=(rank, world, place, pipe, function, args))
            for rank, (_, pipe) in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, pipe in pipes:
            pipe.close()
        told = [_received(pipe) for pipe, _ in pipes]
        for process in processes:
            process.join(SECONDS)
            process.kill()
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


def _rank(
    rank: int, world: int, place: str, pipe: Any, function: Callable[..., Any], args: tuple[Any]
) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "PROGTRAIN_STORE": f"file://{place}/store",
    }
    try:
        told = Told(function(*args))
    except BaseException as error:
        told = Told(error=traceback.format_exc(), kind=type(error).__name__)
    pipe.send(told)
    pipe.close()
    os._exit(0)  # gloo may abort as it ends
