"""Signals that ask a run to end.

While there is a run that can be stored, the first one ends it after the present step, with a
checkpoint. Before that (data are read, samples ranked, stages rehearsed) nothing would be lost, and
it ends at once; so does a second one. One of several processes hears of one signal from all sides,
late where it was busy or starved: it hears the first alone, and whoever has started it ends it at
the second.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

WANTED = (signal.SIGINT, signal.SIGTERM)
_STORING = "\nInterrupted: ends with a checkpoint after this step; once more ends at once.\n"


class Ended(KeyboardInterrupt):
    """A signal ended the program at once."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass
class Signals:
    """Which signal asked for an end."""

    number: int = 0
    patient: bool = False  # whether the run is to be stored first

    def came(self) -> bool:
        """Whether one did."""
        return self.number != 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.number and _of_several():
            return
        again, self.number = self.number, number
        if again or not self.patient:
            raise Ended(number)
        # not print: it may be what the signal has interrupted
        os.write(2, _STORING.encode())


@contextmanager
def asked() -> Generator[Signals]:
    """SIGINT and SIGTERM ask these signals; off the main thread, they do as before. One of several
    processes that was asked hears none afterwards: it is at its end."""
    signals = Signals()
    with handled(signals.ask):
        try:
            yield signals
        finally:
            if signals.number and _of_several():
                signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)


def _of_several() -> bool:
    return bool(os.environ.get("RANK"))


@contextmanager
def ending() -> Generator[None]:
    """SIGTERM ends the program as Ctrl-C does, so that it can say where it was."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    with handled(end):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """SIGINT and SIGTERM go to `handler`; off the main thread, where they did before."""
    try:
        before = [signal.signal(number, handler) for number in WANTED]
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handled in zip(WANTED, before, strict=True):
            signal.signal(number, handled)
