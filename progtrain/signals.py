"""Signals that ask a run to end."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Signals:
    """Which signal asked for an end; handlers only set this flag."""

    number: int = 0

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self.number:  # asked twice: at once
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def asked() -> Generator[Signals]:
    """SIGINT and SIGTERM end the run after the present step; off the main thread, as before."""
    signals = Signals()
    wanted = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, signals.ask) for number in wanted]
    except ValueError:  # not the main thread
        yield signals
        return
    try:
        yield signals
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)
