"""Grow when conditions hold, while earlier growths may still warm up or consolidate.

Each growth has its own ramp, rates and rest. A growth that freezes its host (warmup=frozen_host)
freezes older ones with it, alive or not; younger ones are not its host and go on learning.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require
from progtrain.growth.sequential import Sequential
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class Overlapping(Sequential):
    """Stages by name, in order; two whose conditions hold at once grow at the same step."""

    most: int | None = None  # growths that may be alive at once; None: any number

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = self.most is None or self.most >= 1
        require(ok, "most", self.most, "a whole number >= 1, or null for any number")

    def next(self, run: Run) -> Stage | StopReason | None:
        full = self.most is not None and len(run.living) >= self.most
        return None if full else self.due(run)
