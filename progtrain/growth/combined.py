"""Both curricula in one: data get harder; when they are as hard as they get and nothing more is
learned, the network grows, and the data begin easy again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from progtrain.clock import Duration
from progtrain.contracts import Curriculum, Operator, Trigger
from progtrain.curriculum.none import NoCurriculum
from progtrain.curriculum.sight import cycle_start
from progtrain.errors import require
from progtrain.growth.declared import left
from progtrain.run import Run, Stage, StopReason

_HARDEST = "combined/hardest"  # in `Run.memory`: step of the cycle's start, and of full difficulty


@dataclass(frozen=True)
class Combined:
    """Stages by name, in order, each at a plateau on data of full difficulty.

    The trigger sees only what has been observed after the curriculum's progress had come to 1 in
    this cycle: the fall of a metric on harder data is no plateau. A cycle begins when the last
    growth is integrated; until then, what is new joins on the easiest data.
    """

    curriculum: Curriculum
    trigger: Trigger
    stages: Mapping[str, Operator]
    start: Mapping[str, int | float] = field(default_factory=lambda: dict[str, int | float]())
    consolidation: str = "1epoch"  # no structural change for this long after a warmup
    max_stages: int | None = None  # at most so many growths

    def __post_init__(self) -> None:
        hint = "Try growth=combined curriculum=difficulty, or growth=plateau without a curriculum."
        some = not isinstance(self.curriculum, NoCurriculum)
        require(some, "curriculum", "none", "a curriculum of the data", hint)
        Duration.parse(self.consolidation, "consolidation")
        ok = self.max_stages is None or self.max_stages >= 1
        require(ok, "max_stages", self.max_stages, "a whole number >= 1, or null")

    @property
    def recurring(self) -> bool:
        """Every growth begins the data curriculum again."""
        return True

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
        hardest = self._hardest(run)
        if hardest is None:
            return None
        seen = [o for o in run.history if o.moment.step > hardest]
        cause = self.trigger.due(replace(run, history=seen))
        return replace(stage, cause=f"{cause}, all data seen") if cause else None

    def _hardest(self, run: Run) -> int | None:
        """The step since which the data have been as hard as they get in this cycle."""
        since = cycle_start(run)
        noted = run.memory.get(_HARDEST)
        if isinstance(noted, list) and noted[0] == since.step:
            return int(str(noted[1]))
        if self.curriculum.view(run, since).progress < 1:
            return None
        run.memory[_HARDEST] = [since.step, run.clock.step]
        return run.clock.step
