"""What the growth policies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from progtrain.clock import Duration
from progtrain.growth.condition import Condition
from progtrain.run import Phase, Run

FATE = ("before", "after", "gain", "contribution")  # what `keep_if` may ask beside the run's own


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Where a run starts, how long a growth rests, and what undoes it.

    A stage or option that is null is none: growth.stages.wider=null takes a declared one away.
    """

    start: Mapping[str, int | float] = field(default_factory=lambda: dict[str, int | float]())
    consolidation: str = "0steps"  # no structural change for this long after a warmup
    keep_if: str | None = None  # a condition at the end of a growth's life; it is undone otherwise
    embargo: str = "10%"  # how long what was undone may not grow again; twice that the next time

    def __post_init__(self) -> None:
        for name in {"stages", "options"} & {each.name for each in fields(self)}:
            declared: Mapping[str, object] = getattr(self, name)
            kept = {key: stage for key, stage in declared.items() if stage is not None}
            object.__setattr__(self, name, kept)
        Duration.parse(self.consolidation, "consolidation")
        Duration.parse(self.embargo, "embargo")
        if self.keep_if is not None:
            Condition.parse(self.keep_if, "keep_if", FATE)

    @property
    def consolidate(self) -> Duration:
        return Duration.parse(self.consolidation, "consolidation")

    def embargoed(self, run: Run, stage: str) -> bool:
        """Whether `stage` was rolled back too short a time ago to be tried again."""
        undone = [e for e in run.events if e.phase is Phase.ROLLED_BACK and e.stage == stage]
        if not undone:
            return False
        length = Duration.parse(self.embargo, "embargo")
        longer = Duration(length.value * 2 ** (len(undone) - 1), length.unit)
        return run.clock.progress(undone[-1].since, longer) < 1
