"""Grow when conditions hold: one stage after another, each completed before the next starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from progtrain.clock import Duration
from progtrain.contracts import Operator
from progtrain.errors import require
from progtrain.growth.condition import Condition
from progtrain.growth.declared import left
from progtrain.growth.policy import Policy
from progtrain.growth.trial import Trial
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class Conditional:
    """A stage: what grows, and the condition that must hold for it (condition.py).

    `candidates` are further operators by name; the best of them and of `operator`, which goes by
    the name of the stage, grows after a trial (trial.py).
    """

    when: str
    operator: Operator
    consolidation: str | None = None  # no structural change for this long; None: the policy's
    candidates: Mapping[str, Operator] = field(default_factory=lambda: dict[str, Operator]())
    trial: Trial = field(default_factory=Trial)

    def __post_init__(self) -> None:
        Condition.parse(self.when, "when")
        if self.consolidation is not None:
            Duration.parse(self.consolidation, "consolidation")

    @property
    def condition(self) -> Condition:
        return Condition.parse(self.when, "when")

    def stage(self, name: str) -> Stage:
        """What is to be done when it is due."""
        alone = Stage(name, self.operator, consolidation=self.consolidation)
        if not self.candidates:
            return alone
        every = {name: self.operator, **self.candidates}
        each = {key: replace(alone, operator=operator) for key, operator in every.items()}
        return replace(alone, candidates=each, trial=self.trial)


@dataclass(frozen=True)
class Sequential(Policy):
    """Stages by name, in order; a stage is due while its condition holds."""

    stages: Mapping[str, Conditional]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, stage in self.stages.items():
            names, allowed = list(stage.candidates), f"other names than {name!r}"
            hint = "That is what the stage's own operator is called in the trial."
            ok = name not in stage.candidates
            require(ok, f"stages.{name}.candidates", names, allowed, hint)

    def upcoming(self, run: Run) -> Stage | StopReason:
        coming = left(self.stages, run)
        if not coming:
            return StopReason.STAGES_DONE
        name, stage = coming[0]
        stage.condition.check(run)
        return stage.stage(name)

    def next(self, run: Run) -> Stage | StopReason | None:
        return None if run.living else self.due(run)

    def due(self, run: Run) -> Stage | StopReason | None:
        """The next stage where its condition holds, whatever is alive."""
        stage = self.upcoming(run)
        if isinstance(stage, StopReason):
            return stage
        condition = self.stages[stage.name].condition
        if self.embargoed(run, stage.name) or not condition.holds(run):
            return None
        return stage.because(condition.told(run))
