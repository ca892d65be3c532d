"""Starts the processes of a job that is several, and ends with what they come to.

They meet at a store that this process holds on a port that the system chooses, as under torchrun,
but on the loopback interface alone: no port is fixed, none can be taken in between, nobody else
reaches it. All hold the lock of the run directory, so it is free when the last one is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import (
    active_children,
    get_context,
    get_start_method,
    parent_process,
    resource_tracker,
    set_start_method,
)
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from progtrain.checkpoint.lock import RunLock, acquire
from progtrain.command_line.leaving import leave
from progtrain.command_line.ranks import Outcome, Work, attempt
from progtrain.command_line.supervision import Supervised, supervise
from progtrain.signals import WANTED, ending


@dataclass(frozen=True)
class _Seat:
    """Where a process sits."""

    environment: dict[str, str]
    rank: int
    errors: Path  # what it says to stderr, unless it is the first


def run(work: Work, count: int, held: RunLock | None, turn: int | None = None) -> float:
    """Do the job in `count` processes of this machine; the metric. `turn`: which it is of jobs that
    run at once and share the GPUs; None: it has them all.

    Raises what a rank has raised, `EnvironmentProblem` where one has died, `Ended` where a signal
    has ended the job at once.
    """
    lock = held or acquire(work.directory)
    with lock, _store() as port, tempfile.TemporaryDirectory(prefix="progtrain-") as folder:
        sys.stdout.flush()
        sys.stderr.flush()
        seats = [
            _Seat(_environment(rank, count, port, turn), rank, Path(folder) / f"rank{rank}")
            for rank in range(count)
        ]
        ranks = list[Supervised]()
        try:
            with _held_back(), _started_plainly():
                for seat in seats:
                    ranks.append(_started(work, seat, lock))
            return supervise(ranks, work.directory)
        finally:
            _end(ranks)


@contextmanager
def _store() -> Generator[int]:
    """A store for `torch.distributed`; its port."""
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    listening = socket.create_server(("127.0.0.1", 0))
    port = int(listening.getsockname()[1])
    store = TCPStore(
        "127.0.0.1",
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    yield port
    del store


def _environment(rank: int, count: int, port: int, turn: int | None) -> dict[str, str]:
    """What torchrun would tell it, its share of the cores and of the GPUs, and an interface that is
    always there (gloo would look its host's name up)."""
    import torch

    from progtrain.hardware.devices import block

    names = {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)),
    }
    if turn is not None and (visible := block(turn, count)) is not None:
        names["CUDA_VISIBLE_DEVICES"] = visible
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback:
        names["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", loopback[0])
    return names


@contextmanager
def _held_back() -> Generator[None]:
    """Signals wait; a process that is started within begins with its signals waiting."""
    resource_tracker.ensure_running()  # it would let them through
    signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WANTED)


@contextmanager
def _started_plainly() -> Generator[None]:
    """A process of joblib's tells those that it starts to begin in joblib's own way, which they do
    not know yet."""
    before = get_start_method(allow_none=True)
    set_start_method("spawn", force=True)
    try:
        yield
    finally:
        set_start_method(before, force=True)


def _started(work: Work, seat: _Seat, lock: RunLock) -> Supervised:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process: SpawnProcess = context.Process(
        target=_rank,
        args=(work, seat, lock, theirs),
        name=f"rank {seat.rank}",
        daemon=False,  # its data workers are children
    )
    process.start()
    theirs.close()
    return Supervised(seat.rank, process, ours, seat.errors)


def _end(ranks: list[Supervised]) -> None:
    """Nobody lives on, and the terminal has its cursor."""
    killed = [each for each in ranks if each.process.is_alive()]
    for each in killed:
        each.process.kill()
    for each in ranks:
        each.process.join()
        each.pipe.close()
        each.process.close()
    if killed and sys.stdout.isatty():
        print("\x1b[?25h", end="", flush=True)


def _rank(work: Work, seat: _Seat, lock: RunLock, pipe: Connection) -> None:
    """The life of one process."""
    os.environ.update(seat.environment)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if seat.rank:
        _silence(seat.errors)
    outcome = Outcome(kind=KeyboardInterrupt)
    with suppress(KeyboardInterrupt), ending():
        outcome = attempt(lambda: _work(work, seat, lock), seat.rank)
    signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
    pipe.send_bytes(_packed(outcome))
    for child in active_children():
        child.terminate()
    leave(0)


def _work(work: Work, seat: _Seat, lock: RunLock) -> float:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WANTED)
    return work.train(lock if seat.rank == 0 else None)


def _packed(outcome: Outcome) -> bytes:
    try:
        packed = pickle.dumps(outcome)
        pickle.loads(packed)
    except Exception:
        return pickle.dumps(outcome.plain())
    return packed


def _silence(errors: Path) -> None:
    """One process shows the run; what another says to stderr is kept for its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    kept = os.open(errors, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(nowhere, 1)
    os.dup2(kept, 2)


def _die_with_parent() -> None:
    parent: Any = parent_process()
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
