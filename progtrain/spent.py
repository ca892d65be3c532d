"""Where the wall-clock time of this process goes; no part of a checkpoint.

How fast it is now, for monitors. What the run has cost in all its processes is its account
(account.py), which knows words and no laps.

Time outside of `of(...)` is that of training. Before a lap ends the device has been waited for, so
that what it still had to do is not counted as evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

from progtrain.clock import Moment

LARGEST = ("memory/",)  # of these the largest counts at the end, of others the mean


@dataclass(frozen=True)
class Lap:
    """What was trained since the last evaluation."""

    steps: int
    samples: int
    flops: float
    seconds: float  # of training alone


@dataclass
class Spent:
    """Seconds by what they went into, and what monitors have measured."""

    lap: Lap | None = None  # the last one; None before the first step
    seconds: dict[str, float] = field(default_factory=lambda: dict[str, float]())
    measured: dict[str, list[float]] = field(default_factory=lambda: dict[str, list[float]]())
    _begun: float | None = None  # of this lap
    _start: Moment = field(default_factory=Moment)
    _else: float = 0.0  # seconds of this lap that were not training

    def begin(self, now: Moment) -> None:
        """A lap begins."""
        self._begun, self._start, self._else = time.perf_counter(), now, 0.0

    def end(self, now: Moment) -> None:
        """A lap ends, and the next one begins."""
        steps, start = now.step - self._start.step, self._start
        self.lap = None
        if self._begun is not None and steps > 0:
            training = max(time.perf_counter() - self._begun - self._else, 1e-9)
            self.lap = Lap(steps, now.samples - start.samples, now.flops - start.flops, training)
            self.seconds["training"] = self.seconds.get("training", 0.0) + training
        self.begin(now)

    @contextmanager
    def of(self, what: str) -> Generator[None]:
        """Time that is not training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - begun
            self.seconds[what] = self.seconds.get(what, 0.0) + taken
            self._else += taken

    def share(self, what: str) -> float:
        """Of all the time so far, in [0, 1]."""
        return self.seconds.get(what, 0.0) / max(sum(self.seconds.values()), 1e-9)

    def note(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.measured.setdefault(name, []).append(value)

    def summary(self) -> dict[str, float]:
        """What is told at the end: means over the evaluations, of memory the largest."""
        return {
            name: max(values) if name.startswith(LARGEST) else fmean(values)
            for name, values in self.measured.items()
        }
