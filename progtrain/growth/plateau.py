"""Grow when the present network learns no more: one declared stage at each plateau."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from progtrain.clock import Duration
from progtrain.contracts import Operator, Trigger
from progtrain.errors import require
from progtrain.growth.declared import left
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class PlateauGrowth:
    """Stages by name, in order; the trigger's window starts anew when a growth is integrated."""

    trigger: Trigger
    stages: Mapping[str, Operator]
    start: Mapping[str, int | float] = field(default_factory=lambda: dict[str, int | float]())
    consolidation: str = "1epoch"  # no structural change for this long after a warmup
    max_stages: int | None = None  # at most so many growths

    def __post_init__(self) -> None:
        Duration.parse(self.consolidation, "consolidation")
        ok = self.max_stages is None or self.max_stages >= 1
        require(ok, "max_stages", self.max_stages, "a whole number >= 1, or null")

    @property
    def consolidate(self) -> Duration:
        return Duration.parse(self.consolidation, "consolidation")

    def upcoming(self, run: Run) -> Stage | StopReason:
        coming = left(self.stages, run)
        if not coming:
            return StopReason.STAGES_DONE
        if self.max_stages is not None and len(run.events) >= self.max_stages:
            return StopReason.MAX_STAGES
        return Stage(*coming[0])

    def next(self, run: Run) -> Stage | StopReason | None:
        if run.living:
            return None
        stage = self.upcoming(run)
        if isinstance(stage, StopReason):
            return stage
        cause = self.trigger.due(run)
        return replace(stage, cause=cause) if cause else None
