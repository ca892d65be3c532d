"""A process beside the run that compiles, at the lowest priority, and ends with it.

It is deaf to the run's signals, silent, and the head of a process group, so that the compilers it
calls end with it: when its work is done, when the run ends it, and when the run is no more.
"""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe

import torch

from progtrain.ahead.calls import compile_all
from progtrain.ahead.order import Order
from progtrain.hardware.engine import Engine
from progtrain.signals import WANTED

_LOWEST = 19
_CODE = "import sys; sys.path[:] = {path}; from {module} import live; live({order}, {pipe})"


@dataclass(frozen=True)
class Result:
    """What has been compiled, and why no more was."""

    graphs: int
    seconds: float
    ended: str = ""  # such as `until the run ended`
    failed: bool = False


class Background:
    """The process; `packed` is an `Order` as `pack` makes it.

    Not one of multiprocessing's: those share a tracker of what they leave behind, and it would warn
    at the run's end of what this one leaves when it is ended at once.
    """

    def __init__(self, packed: bytes) -> None:
        self._begun, self._graphs = time.perf_counter(), 0
        self._pipe, theirs = Pipe(duplex=False)
        self._news = select.poll()  # asked at every step, and quicker than the pipe's own
        self._news.register(self._pipe.fileno(), select.POLLIN)
        with tempfile.TemporaryFile() as order, theirs, _signals_blocked():
            order.write(packed)
            order.seek(0)
            fds = (order.fileno(), theirs.fileno())
            told = {"path": sys.path, "module": __name__, "order": fds[0], "pipe": fds[1]}
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE.format(**told)],
                stdin=subprocess.PIPE,  # at its end the run is no more
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=fds,
                env={**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"},  # no pool of its own
                start_new_session=True,
            )

    def result(self) -> Result | None:
        """What it has come to; None while it works."""
        try:
            while self._news.poll(0):
                self._graphs, done, error = self._pipe.recv()
                if done:
                    return self._over(error)
        except EOFError:
            return self._over(f"the process ended with code {self._process.wait()}")
        return None

    def _over(self, error: str) -> Result:
        rest = f"then it failed ({error}); what is missing compiles at the growth"
        return replace(self.end(rest if error else ""), failed=bool(error))

    def end(self, why: str = "") -> Result:
        """What it has done so far; neither the process nor what it has called lives on."""
        result = Result(self._graphs, time.perf_counter() - self._begun, why)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._pipe.close()
        return result


def pack(order: Order) -> bytes:
    """For another process; raises where a class of the network cannot go there."""
    buffer = io.BytesIO()
    torch.save(order, buffer)
    return buffer.getvalue()


@contextmanager
def _signals_blocked() -> Generator[None]:
    """A process that is started within never hears the signals that are the run's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def live(order: int, told: int) -> None:
    """The life of the process; the numbers of its open files: an order, and where it tells."""
    os.nice(_LOWEST)
    threading.Thread(target=_die_with_run, daemon=True).start()
    pipe, graphs, failure = Connection(told, readable=False), 0, ""
    try:
        for graphs in _compiled(order):
            pipe.send((graphs, False, ""))
    except Exception as error:
        failure = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300]
    pipe.send((graphs, True, failure))
    os._exit(0)


def _compiled(order: int) -> Iterator[int]:
    """Carry the order out; the graphs so far, again and again."""
    with os.fdopen(order, "rb") as file:
        wanted: Order = torch.load(file, weights_only=False)
    if wanted.device.type == "cuda":
        torch.cuda.set_device(wanted.device)
    engine = Engine(wanted.device, wanted.settings)
    for _ in compile_all(wanted, engine):
        yield engine.graphs


def _die_with_run() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os.killpg(0, signal.SIGKILL)
