"""How much memory a run takes: what it holds, counted; what a step adds, measured.

On CUDA the allocator tells its peak. On a CPU torch's profiler notes every allocation and release;
their running sum has a peak. What libraries take by themselves (oneDNN's scratch) is not seen.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.profiler import ProfilerActivity, profile

from progtrain.planning.rows import Held
from progtrain.run import Run


@dataclass
class Peak:
    """The most bytes that were taken beyond those at the beginning."""

    bytes: int = 0


@contextmanager
def measured(device: torch.device) -> Generator[Peak]:
    """Measure what runs inside; what it releases of before is not counted on a CPU."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        torch.cuda.synchronize(device)
        peak.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it would write to the screen
    with (
        _silent(),
        profile(
            activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False
        ) as profiler,
    ):
        yield peak
    peak.bytes = _highest(profiler)


@contextmanager
def _silent() -> Generator[None]:
    """Nothing is written to stderr: the allocator warns of every block older than the profile."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _highest(profiler: profile) -> int:
    results: Any = profiler.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    moves = [each for each in results.events() if each.name() == "[memory]"]
    level = highest = 0
    for move in sorted(moves, key=lambda each: each.start_ns()):
        level += move.nbytes()
        highest = max(highest, level)
    return highest


def held(run: Run, device: torch.device) -> Held:
    """What `run` holds on `device`, whether or not there are gradients now."""
    seen = set[int]()
    average = _tensors(run.average) if run.average is not None else ()
    taught = (tensor for teacher in run.teachers for tensor in _tensors(teacher.model))
    back = (
        tensor
        for before in run.ways_back.values()
        for tensor in (
            *_tensors(before.model),
            *(_tensors(before.average) if before.average is not None else ()),
            *(each for state in before.states.values() for each in state.values()),
        )
    )
    learning = (p for p in run.model.parameters() if p.requires_grad)
    return Held(
        weights=num_bytes(_tensors(run.model), device, seen),
        gradients=sum(p.numel() * p.element_size() for p in learning),
        optimizer=num_bytes(_states(run), device, seen),
        kept=num_bytes((*average, *taught, *back), device, seen),
    )


def num_bytes(tensors: Iterable[Tensor], device: torch.device, seen: set[int]) -> int:
    """Bytes of the storages on `device` that `seen` does not know yet; it knows them then."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        key = StorageWeakRef(storage).cdata
        if tensor.device.type == device.type and key not in seen:
            seen.add(key)
            total += storage.nbytes()
    return total


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _states(run: Run) -> Iterator[Tensor]:
    for name in run.optimizer.parameters:
        yield from run.optimizer.state_of(name).values()
