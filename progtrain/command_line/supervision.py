"""Waits for the processes of a job: what they come to, who has died, and signals for all."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from progtrain.command_line.directory import holds_checkpoint
from progtrain.command_line.ranks import Outcome
from progtrain.errors import EnvironmentProblem
from progtrain.report.units import assigned
from progtrain.signals import Ended, handled

_GRACE = 5.0  # seconds that the others have once one has failed
_SHOWN = 2000  # characters of what a process has said before it died


@dataclass
class Supervised:
    """One process and what is known of its end."""

    rank: int
    process: SpawnProcess
    pipe: Connection
    errors: Path
    outcome: Outcome | None = None
    code: int | None = None  # its exit code, once it is gone; negative: the signal

    @property
    def failed(self) -> bool:
        """Whether it has come to a bad end."""
        if self.outcome is None:
            return self.code is not None
        return self.outcome.kind is not None

    def look(self) -> None:
        """Hear what it has told; note whether it is gone."""
        try:
            if self.outcome is None and self.pipe.poll():
                self.outcome = pickle.loads(self.pipe.recv_bytes())
        except EOFError:
            pass
        if not self.process.is_alive():
            self.code = self.process.exitcode


def supervise(ranks: Sequence[Supervised], directory: Path) -> float:
    """Wait for all; the metric of rank 0. The caller kills whoever is left."""
    asked: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if asked:
            raise Ended(number)
        asked.append(number)
        for each in ranks:
            if each.process.is_alive():
                os.kill(each.process.pid or 0, number)

    with handled(forward):
        _watch(ranks)
    if not any(each.failed for each in ranks):
        assert ranks[0].outcome is not None
        return ranks[0].outcome.metric
    raise _blamed(ranks, directory, asked)


def _watch(ranks: Sequence[Supervised]) -> None:
    """Until all are gone, or until those that hang on to a failed one have had their time."""
    end: float | None = None
    while waiting := [each for each in ranks if each.code is None]:
        if end is None and any(each.failed for each in ranks):
            end = time.monotonic() + _GRACE
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            return
        sources: list[Any] = [each.process.sentinel for each in waiting]
        sources += [each.pipe for each in waiting if each.outcome is None]
        wait(sources, left)
        for each in waiting:
            each.look()


def _blamed(ranks: Sequence[Supervised], directory: Path, asked: Sequence[int]) -> BaseException:
    """The one failure that explains the others."""
    dead = [each for each in ranks if each.code is not None and each.outcome is None]
    killed = [each for each in dead if each.code not in (0, -signal.SIGABRT)]
    outcomes = [each.outcome for each in ranks if each.outcome and each.outcome.kind]
    if killed:
        return _death(killed[0], len(ranks), directory)
    if stored := [each for each in outcomes if each.stored]:
        return max((each.error() for each in stored), key=lambda e: getattr(e, "exit_code", 0))
    if any(each.ended for each in outcomes):
        return Ended(asked[0] if asked else next(_numbers(outcomes)))
    if known := [each for each in outcomes if each.known]:
        return known[0].error()
    if dead:  # gloo aborts where another has gone
        return _death(dead[0], len(ranks), directory)
    return outcomes[0].error()


def _numbers(outcomes: Sequence[Outcome]) -> Iterator[int]:
    yield from (each.facts.get("number", 0) for each in outcomes if each.ended)
    yield signal.SIGINT


def _death(dead: Supervised, count: int, directory: Path) -> EnvironmentProblem:
    code = dead.code or 0
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    memory = " Often the machine had no memory left: try a smaller train.batch_size or fewer"
    memory += " hardware.devices." if code == -signal.SIGKILL else ""
    went = (
        f"The last checkpoint is whole: continue with progtrain {assigned('resume', directory)}"
        if holds_checkpoint(directory)
        else "There was no checkpoint yet"
    )
    told = dead.errors.read_text(errors="replace")[-_SHOWN:] if dead.errors.is_file() else ""
    said = f"\nIt had said:\n{told.strip()}" if told.strip() else ""
    return EnvironmentProblem(
        f"Rank {dead.rank} of {count} (pid {dead.process.pid}) was ended {how}; the others were"
        f" stopped.{memory if code == -signal.SIGKILL else ''} {went}.{said}"
    )
