"""Grow at declared times, in steps, epochs, samples, FLOPs, seconds or shares of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.clock import Duration, Moment
from progtrain.contracts import Operator
from progtrain.errors import require
from progtrain.growth.declared import left
from progtrain.growth.policy import Policy
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class At:
    """A stage: what grows, and when."""

    at: str  # a time since the start, such as 300steps, 4epochs or 40%
    operator: Operator

    def __post_init__(self) -> None:
        Duration.parse(self.at, "at")


@dataclass(frozen=True)
class Schedule(Policy):
    """Stages by name, in order; a stage whose time comes while another consolidates waits."""

    stages: Mapping[str, At]

    def __post_init__(self) -> None:
        super().__post_init__()
        previous: tuple[str, Duration] | None = None
        for name, stage in self.stages.items():
            at = Duration.parse(stage.at, f"stages.{name}.at")
            if previous and previous[1].unit is at.unit:
                later = f"after stages.{previous[0]}.at={previous[1]}"
                require(at.value > previous[1].value, f"stages.{name}.at", stage.at, later)
            previous = (name, at)

    def upcoming(self, run: Run) -> Stage | StopReason:
        coming = left(self.stages, run)
        if not coming:
            return StopReason.STAGES_DONE
        name, stage = coming[0]
        at = Duration.parse(stage.at, "at")
        return Stage(name, stage.operator, f"its time has come: {at}", at)

    def next(self, run: Run) -> Stage | StopReason | None:
        if run.living:
            return None
        stage = self.upcoming(run)
        if isinstance(stage, StopReason):
            return stage
        if self.embargoed(run, stage.name):
            return None
        assert stage.at is not None
        return stage if run.clock.progress(Moment(), stage.at) >= 1 else None
