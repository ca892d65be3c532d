"""Where the processes of a run meet: a store at MASTER_ADDR:MASTER_PORT.

Whoever has started them holds it (torchrun's agent, our own parent process), else rank 0 does
(`srun`). torch would wait for the others inside a call that hears no signal; here every wait is a
short one of many, so that Ctrl-C ends it, and so does whoever ends processes when one has died.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread

from torch.distributed import (
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from progtrain.errors import EnvironmentProblem

_ATTEMPT = 1.0  # seconds of one wait
_POLL = 0.05
_met: dict[tuple[str, int], Store] = {}
LOST = "lost"  # of these ranks it is known that they will not come
complete = Event()  # all processes are here


def meet(rank: int, seconds: float) -> Store:
    """The store of this process's run, the same one each time; raises `EnvironmentProblem` where
    nobody opens it."""
    address, port = _where()
    if (address, port) not in _met:
        _met[address, port] = _connected(address, port, rank, seconds)
    return _met[address, port]


def adopt(store: Store) -> None:
    """From here on `meet` gives this one: what the processes of one start say among themselves."""
    _met[_where()] = store


def _where() -> tuple[str, int]:
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def _connected(address: str, port: int, rank: int, seconds: float) -> Store:
    host = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    end = time.monotonic() + seconds
    while True:
        try:
            if not host:  # torch would tell everybody that it waits
                socket.create_connection((address, port), _ATTEMPT).close()
            store = TCPStore(
                address,
                port,
                is_master=host,
                wait_for_workers=False,
                timeout=timedelta(seconds=_ATTEMPT),
            )
        except (OSError, RuntimeError) as error:  # nobody is there yet, or somebody else
            if host or time.monotonic() > end:
                raise EnvironmentProblem(
                    f"No store at MASTER_ADDR={address} MASTER_PORT={port} for rank {rank}:"
                    f" {str(error).splitlines()[0]}. Is the address right, and is the port free?"
                ) from error
            time.sleep(_POLL)
        else:
            store.set_timeout(timedelta(seconds=max(seconds, _ATTEMPT)))
            return store


def wait_for(ready: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again; whether it became true in time."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    return True


def here(rank: int) -> str:
    """The key that says that this rank is here."""
    return f"here/{rank}"


def roll_call(store: Store, rank: int, world: int, seconds: float) -> None:
    """Wait until all are there; raises `EnvironmentProblem` with those who are not."""
    store.set(here(rank), "")
    others = [here(each) for each in range(world)]
    waited = wait_for(lambda: store.check(others) or store.check([LOST]), seconds)
    if waited and store.check(others):
        complete.set()
        return
    if waited:
        raise EnvironmentProblem(
            f"Of {world} processes rank {store.get(LOST).decode()} came and was lost before the run"
            " began. Nothing that was stored is lost. Often its machine had no memory left: what"
            " has it said itself?"
        )
    missing = [str(each) for each in range(world) if not store.check([here(each)])]
    raise EnvironmentProblem(
        f"Of {world} processes rank {', '.join(missing)} did not come within hardware.timeout="
        f"{seconds:g} seconds. Were all of them started, and with the same settings?"
    )


def connect(how: Callable[[], None], rank: int) -> None:
    """Connect to the others, who are all there; raises `EnvironmentProblem` where they cannot be
    reached. It is done in a thread, as torch hears no signal meanwhile."""
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            how()
        except Exception as error:
            errors.append(error)

    connecting = Thread(target=attempt, daemon=True)
    connecting.start()
    while connecting.is_alive():
        connecting.join(_ATTEMPT)
    if not errors:
        return
    if not isinstance(errors[0], RuntimeError):
        raise errors[0]
    raise EnvironmentProblem(
        f"Rank {rank} cannot reach the other processes: {str(errors[0]).splitlines()[0]:.300}. Try"
        " GLOO_SOCKET_IFNAME=<interface>, one by which the machines reach each other (`ip addr`"
        " names them); or is another process gone?"
    ) from errors[0]
