"""Never grow: the from-scratch baseline at the model's full size, in the same harness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from progtrain.clock import Duration, Unit
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class NoGrowth:
    """`start` may still name a smaller network: the fixed-size control."""

    start: Mapping[str, int | float] = field(default_factory=lambda: dict[str, int | float]())

    keep_if = None

    @property
    def consolidate(self) -> Duration:
        return Duration(0, Unit.STEP)

    def upcoming(self, run: Run) -> Stage | StopReason:
        return StopReason.NOTHING_TO_GROW

    def next(self, run: Run) -> Stage | StopReason | None:
        return StopReason.NOTHING_TO_GROW
