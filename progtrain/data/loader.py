"""Reads batches of pictures in worker processes, ahead of time.

It decides on nothing: a batch is asked for by indices and seeds, and what is read ahead is a guess
at what will be asked for next, thrown away where it was wrong. So the number of workers changes no
bit, and a resume needs nothing of it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from progtrain.data.pictures import Pictures
from progtrain.data.sets import Wanted
from progtrain.errors import EnvironmentProblem, ProgtrainError

_POLL = 2.0  # seconds after which it is asked whether workers are alive


class Loader:
    """Workers begin with the first batch and stay until the end."""

    def __init__(self, pictures: Pictures, workers: int, prefetch: int, timeout: float) -> None:
        self.pictures, self.workers = pictures, workers
        self.prefetch, self.timeout = prefetch, timeout
        self.pinned = False  # whether batches come in memory that a GPU reads by itself
        self._loader: DataLoader[Any] | None = None
        self._batches: Iterator[Any] = iter(())
        self._source: Iterator[Wanted] = iter(())
        self._asked = deque[Wanted]()  # what workers read now, or have read
        self._processes: set[BaseProcess] = set()
        self._right = 0  # guesses that came true since reading began
        self._sure, self._guess = True, None

    def read(self, wanted: Wanted, ahead: Iterable[Wanted] = ()) -> Tensor:
        """A batch (B, channels, size, size), uint8; `ahead` is what will be wanted after it.

        Raises `ConfigError` for a damaged image, `EnvironmentProblem` for a dead or stuck worker.
        """
        if self.workers == 0:
            return _good(self.pictures.__getitems__(wanted))
        if self._asked and self._asked[0] == wanted:
            self._right += 1
        else:
            self._begin(wanted, iter(ahead))
        got = self._next(wanted)
        self._asked.popleft()
        return _good(got)

    def _begin(self, wanted: Wanted, ahead: Iterator[Wanted]) -> None:
        """Begin to read at `wanted`; guess what comes next where guesses have come true."""
        if self._asked and not self._right:
            self._sure = False
        elif self._guess is not None and wanted == self._guess:
            self._sure = True
        self._asked.clear()
        self._right = 0
        if self._sure:
            self._source, self._guess = chain([wanted], ahead), None
        else:
            self._source, self._guess = iter([wanted]), next(ahead, None)
        before, handler = set(multiprocessing.active_children()), _handler()
        self._batches = iter(self._opened())
        self._processes |= set(multiprocessing.active_children()) - before
        # torch's own would raise wherever the run happens to be, and we ask for the dead ourselves
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)

    def _opened(self) -> DataLoader[Any]:
        if self._loader is None:
            atexit.register(_end, self._processes)  # before Python waits for its children
            self._loader = DataLoader(
                self.pictures,  # pyright: ignore[reportArgumentType]
                batch_sampler=_Feed(self),  # pyright: ignore[reportArgumentType]
                num_workers=self.workers,
                prefetch_factor=self.prefetch,
                persistent_workers=True,
                pin_memory=self.pinned,
                collate_fn=_same,
                timeout=_POLL,
                worker_init_fn=_deaf,
                generator=torch.Generator(),  # else it would draw a number of the run's
            )
        return self._loader

    def asks(self) -> Generator[Wanted]:
        for wanted in self._source:
            self._asked.append(wanted)
            yield wanted

    def _next(self, wanted: Wanted) -> Any:
        begun = time.monotonic()
        while True:
            try:
                return next(self._batches)
            except RuntimeError as error:
                dead = [each.pid for each in self._processes if not each.is_alive()]
                late = time.monotonic() - begun > self.timeout
                if not dead and not late and "timed out" in str(error):
                    continue
                self.close()
                raise EnvironmentProblem(self._told(wanted, dead, late, error)) from None

    def _told(self, wanted: Wanted, dead: list[int | None], late: bool, error: Exception) -> str:
        name, index = self.pictures.name, wanted[0][0]
        place = f"near {name} sample {index} ({self.pictures.files[index]})"
        advice = "Try data.workers=0. The last checkpoint is whole; resume continues it."
        if dead:
            return (
                f"Data worker {dead[0]} was killed {place}, often because memory or /dev/shm is"
                f" full. {advice}"
            )
        if late:
            return f"Data workers gave nothing for {self.timeout:g} s {place}. {advice}"
        return f"Data workers failed {place}: {error}. {advice}"

    def close(self) -> None:
        """End all workers at once."""
        _end(self._processes)
        self._asked.clear()
        self._loader, self._batches = None, iter(())

    def __del__(self) -> None:
        self.close()


def _end(processes: set[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()
    processes.clear()


class _Feed:
    """What torch's loader takes the next batch to read from."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Wanted]:
        return self._loader.asks()


def _good(got: Tensor | ProgtrainError) -> Tensor:
    if isinstance(got, ProgtrainError):
        raise got
    return got


def _same(batch: Any) -> Any:
    return batch


def _deaf(_: int) -> None:
    """A signal to the whole group is for the run, which still needs its workers to stop well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _handler() -> Any:
    """What happens now when a child dies; None where signals cannot be set (another thread)."""
    try:
        handler = signal.getsignal(signal.SIGCHLD)
        return signal.signal(signal.SIGCHLD, handler) if handler is not None else None
    except ValueError:
        return None
