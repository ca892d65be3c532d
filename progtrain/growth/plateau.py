"""Grow when the present network learns no more: one declared stage at each plateau."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from progtrain.contracts import Operator, Trigger
from progtrain.errors import require
from progtrain.growth.declared import left
from progtrain.growth.policy import Policy
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class PlateauGrowth(Policy):
    """Stages by name, in order; the trigger's window starts anew when a growth is integrated."""

    trigger: Trigger
    stages: Mapping[str, Operator]
    max_stages: int | None = None  # at most so many growths

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = self.max_stages is None or self.max_stages >= 1
        require(ok, "max_stages", self.max_stages, "a whole number >= 1, or null")

    def upcoming(self, run: Run) -> Stage | StopReason:
        coming = left(self.stages, run)
        if not coming:
            return StopReason.STAGES_DONE
        if self.max_stages is not None and len(run.grown) >= self.max_stages:
            return StopReason.MAX_STAGES
        return Stage(*coming[0])

    def next(self, run: Run) -> Stage | StopReason | None:
        if run.living:
            return None
        stage = self.upcoming(run)
        if isinstance(stage, StopReason):
            return stage
        if self.embargoed(run, stage.name):
            return None
        cause = self.trigger.due(run)
        return replace(stage, cause=cause) if cause else None
