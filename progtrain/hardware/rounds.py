"""The processes of one start of a launch, among those of earlier starts that met at the same store.

torchrun starts all processes anew when one has died (`--max-restarts`), and its store still holds
what the former ones have said; its count of restarts is one machine's own. So each process comes
with a token that nobody else has, and rank 0 asks the tokens into its round: a prefix of all keys.

While they come, each lets its heart beat. One whose heart has stopped is named to all, who would
else wait for it as long as for one that is late.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from uuid import uuid4

from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
)

from progtrain.hardware import meeting
from progtrain.hardware.meeting import LOST, adopt, here, wait_for

_COME, _ASKED, _HEART = "progtrain/come", "progtrain/asked", "progtrain/heart"
_BEAT = 0.5  # seconds between two
_STOPPED = 8.0  # seconds without one
_POLL = 0.1


def convene(store: Store, world: int) -> Store:
    """Rank 0's: a new round, into which all others are asked as they come."""
    name = f"progtrain/{uuid4().hex}"
    made = PrefixStore(name, store)
    others = [_Guest(rank) for rank in range(1, world)]
    Thread(target=_host, args=(store, made, name, others), daemon=True).start()
    adopt(made)
    return made


def come(store: Store, rank: int) -> Store:
    """Another process's: wait for rank 0's round, however long it takes."""
    token = uuid4().hex
    Thread(target=_live, args=(store, rank, token), daemon=True).start()
    wait_for(lambda: store.check([f"{_ASKED}/{token}"]), float("inf"))
    made = PrefixStore(store.get(f"{_ASKED}/{token}").decode(), store)
    adopt(made)
    return made


@dataclass
class _Guest:
    """What rank 0 knows of another."""

    rank: int
    token: str = ""
    heart: bytes = b""
    alive: bool = False  # whether a beat was heard; the token may be one of an earlier start
    since: float = field(default_factory=time.monotonic)

    def ask(self, store: Store, name: str) -> None:
        """Ask it into the round `name`, if it has come, and listen to its heart."""
        if not store.check([f"{_COME}/{self.rank}"]):
            return
        token = store.get(f"{_COME}/{self.rank}").decode()
        if token != self.token:
            self.token, self.heart, self.alive = token, store.get(f"{_HEART}/{token}"), False
            store.set(f"{_ASKED}/{token}", name)
        heart = store.get(f"{_HEART}/{token}")
        if heart != self.heart:
            self.heart, self.alive, self.since = heart, True, time.monotonic()

    @property
    def lost(self) -> bool:
        return self.alive and time.monotonic() > self.since + _STOPPED


def _host(store: Store, made: Store, name: str, others: list[_Guest]) -> None:
    """Until all are here, or one is lost."""
    keys = [here(each.rank) for each in others]
    with suppress(RuntimeError):  # the store is gone, and so is the run
        while not made.check(keys):
            for each in others:
                each.ask(store, name)
            if lost := [str(each.rank) for each in others if each.lost]:
                made.set(LOST, ", ".join(lost))
                return
            time.sleep(_POLL)


def _live(store: Store, rank: int, token: str) -> None:
    """Beat until the round is complete: later the connections tell who has died."""
    beats = 0
    with suppress(RuntimeError):
        while not (beats and meeting.complete.wait(_BEAT)):
            beats += 1
            store.set(f"{_HEART}/{token}", str(beats))
            if beats == 1:  # whoever finds the token finds a heart
                store.set(f"{_COME}/{rank}", token)
