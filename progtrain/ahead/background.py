"""A process beside the run that compiles, at the lowest priority, and ends with it.

It is deaf to signals, silent, and the head of a process group, so that the compilers it calls end
with it: when its work is done, when the run ends it, and when the run is no more.
"""

from __future__ import annotations

import io
import os
import signal
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from progtrain.ahead.calls import compile_all
from progtrain.ahead.order import Order
from progtrain.hardware.engine import Engine
from progtrain.signals import WANTED

_LOWEST = 19


@dataclass(frozen=True)
class Result:
    """What has been compiled, and why no more was."""

    graphs: int
    seconds: float
    ended: str = ""  # such as `, until the run ended`


class Background:
    """The process; `packed` is an `Order` as `pack` makes it."""

    def __init__(self, packed: bytes) -> None:
        context, self._begun, self._graphs = get_context("spawn"), time.perf_counter(), 0
        self._pipe, theirs = context.Pipe(duplex=False)
        # not as an argument: to start would wait until the process can read it
        handle, name = tempfile.mkstemp(prefix="progtrain-ahead-")
        self._order = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(packed)
        self._process = context.Process(target=_live, args=(name, theirs), daemon=True)
        with _signals_blocked():
            self._process.start()
        theirs.close()

    def result(self) -> Result | None:
        """What it has come to; None while it works."""
        try:
            while self._pipe.poll():
                self._graphs, done, why = self._pipe.recv()
                if done:
                    return self.end(why)
        except EOFError:
            self._process.join()
            return self.end(failed(f"the process ended with code {self._process.exitcode}"))
        return None

    def end(self, why: str = "") -> Result:
        """What it has done so far; neither the process nor what it has called lives on."""
        result = Result(self._graphs, time.perf_counter() - self._begun, why)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._order.unlink(missing_ok=True)
        return result


def failed(why: str) -> str:
    return f", then it failed ({why}); what is missing compiles at the growth"


def pack(order: Order) -> bytes:
    """For another process; raises where a class of the network cannot go there."""
    buffer = io.BytesIO()
    torch.save(order, buffer)
    return buffer.getvalue()


@contextmanager
def _signals_blocked() -> Generator[None]:
    """A process that is started within never hears the signals that are the run's."""
    resource_tracker.ensure_running()  # it would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(name: str, pipe: Connection) -> None:
    os.setsid()
    os.nice(_LOWEST)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    graphs, why = 0, ""
    try:
        for graphs in _compiled(Path(name)):
            pipe.send((graphs, False, ""))
    except Exception as error:
        why = failed(f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300])
    pipe.send((graphs, True, why))
    os._exit(0)


def _compiled(path: Path) -> Iterator[int]:
    """Carry the order out; the graphs so far, again and again."""
    inductor: Any = import_module("torch._inductor.config")
    inductor.compile_threads = 1  # no pool of processes; no part of the cache's keys
    order: Order = torch.load(path, weights_only=False)
    path.unlink(missing_ok=True)
    engine = Engine(order.device, order.settings)
    for _ in compile_all(order, engine):
        yield engine.graphs


def _die_with_parent() -> None:
    parent: Any = parent_process()
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
