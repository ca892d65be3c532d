"""Both curricula in one: data get harder; when they are as hard as they get and nothing more is
learned, the network grows, and the data begin easy again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from progtrain.contracts import Curriculum
from progtrain.curriculum.none import NoCurriculum
from progtrain.curriculum.sight import cycle_start
from progtrain.errors import require
from progtrain.growth.plateau import PlateauGrowth
from progtrain.run import Run, Stage, StopReason

_HARDEST = "combined/hardest"  # in `Run.memory`: step of the cycle's start, and of full difficulty


@dataclass(frozen=True, kw_only=True)
class Combined(PlateauGrowth):
    """Stages by name, in order, each at a plateau on data of full difficulty.

    The trigger sees only what has been observed after the curriculum's progress had come to 1 in
    this cycle: the fall of a metric on harder data is no plateau. A cycle begins when the last
    growth is integrated (or undone); until then, what is new joins on the easiest data.
    """

    curriculum: Curriculum

    def __post_init__(self) -> None:
        super().__post_init__()
        hint = "Try growth=combined curriculum=difficulty, or growth=plateau without a curriculum."
        some = not isinstance(self.curriculum, NoCurriculum)
        require(some, "curriculum", "none", "a curriculum of the data", hint)

    @property
    def recurring(self) -> bool:
        """Every growth begins the data curriculum again."""
        return True

    def next(self, run: Run) -> Stage | StopReason | None:
        hardest = None if run.living else self._hardest(run)
        seen = [] if hardest is None else [o for o in run.history if o.moment.step > hardest]
        stage = super().next(replace(run, history=seen))
        if not isinstance(stage, Stage):
            return stage
        return stage.because(f"{stage.cause}, all data seen") if hardest is not None else None

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
