"""One process a run directory: an advisory lock that ends with its holder, even by SIGKILL."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from datetime import datetime
from multiprocessing import reduction
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

from progtrain.errors import BusyError, EnvironmentProblem

NAME = ".lock"
_OWNER = re.compile(r'\{"pid": ([0-9]{1,10}), "host": "([\w.-]{1,255})", "since": "([\w:+-]+)"\}')


class RunLock:
    """The lock on a run directory, until `release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        _held.add(self)

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._descriptor is not None:
            try:
                os.ftruncate(self._descriptor, 0)
            finally:
                self.close()

    def close(self) -> None:
        """Close this process's handle; the lock ends with the last handle."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that `multiprocessing` starts: it holds the lock as well."""
        assert self._descriptor is not None
        return _inherited, (self.path, reduction.DupFd(self._descriptor))

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _inherited(path: Path, descriptor: Any) -> RunLock:
    return RunLock(path, descriptor.detach())


_held: WeakSet[RunLock] = WeakSet()


def _forget_in_child() -> None:
    """A forked data worker must not keep the lock when its parent has been killed."""
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_forget_in_child)


def acquire(run_dir: Path) -> RunLock:
    """Take `run_dir`, creating it where needed.

    Raises `BusyError` naming the holder, `EnvironmentProblem` if nothing can be written there.
    """
    path = run_dir / NAME
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise EnvironmentProblem(
            f"Cannot write to output directory {run_dir}: {error.strerror}."
        ) from error
    try:
        _lock(run_dir, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return RunLock(path, descriptor)


def holder(run_dir: Path) -> str | None:
    """Who runs in `run_dir` now, in words; None where nobody does.

    The lock of a holder that has been killed is looked at by taking it for a moment.
    """
    try:
        descriptor = os.open(run_dir / NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_size == 0:  # released as it should be
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _lock(run_dir: Path, descriptor: int) -> None:
    """Lock the open file and sign it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    except BlockingIOError:
        raise BusyError(
            f"{run_dir} is in use by {_owner(descriptor)}."
            " Wait for it, or choose another hydra.run.dir."
        ) from None
    except OSError as error:
        raise EnvironmentProblem(f"Cannot lock {run_dir}: {error.strerror}.") from error


def _owner(descriptor: int) -> str:
    """The holder in words; it may not have signed yet."""
    match = _OWNER.fullmatch(os.pread(descriptor, 1000, 0).decode(errors="replace"))
    if match is None:
        return "another process"
    return f"pid {match[1]} on host {match[2]} since {match[3]}"
