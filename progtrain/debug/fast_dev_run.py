"""The whole path of a run in a few steps: one batch, every declared growth, one checkpoint, test.

Lengths are not shortened but passed by, so times in steps or seconds fit as well: a growth is due
as soon as the one before it has lived, and each phase of its life lasts one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from progtrain.clock import Clock, Duration, Unit
from progtrain.contracts import Growth, Operator, Settle, Strength, Warmup
from progtrain.data.sets import Batches
from progtrain.debug.first_batches import InOrder, first, head
from progtrain.debug.none import NoDebug
from progtrain.growth.declared import passed_over
from progtrain.growth.trial import Trial
from progtrain.machine import State
from progtrain.run import Event, Phase, Run, Stage, StopReason

if TYPE_CHECKING:
    from progtrain.build import Parts
    from progtrain.debug.around import Around
    from progtrain.machine import Machine

ONE = Duration(1, Unit.STEP)
_CAUSE = "debug=fast_dev_run grows everything once"


@dataclass(frozen=True)
class FastDevRun(NoDebug):
    """One training batch, one evaluation batch, each declared growth once with a step a phase."""

    status = "fast_dev_run"

    def trimmed(self, parts: Parts) -> Parts:
        return replace(
            parts,
            growth=OnceEach(parts.growth),
            warmup=BriefWarmup(parts.warmup),
            settle=BriefSettle(parts.settle),
            train=replace(parts.train, evaluate_every="1steps"),
            checkpoint=replace(parts.checkpoint, every="100%"),
        )

    def cut(self, batches: Batches, size: int) -> Batches:
        sets = first(batches, size)
        test = None if sets.test is None else head(sets.test, size)
        sets = replace(sets, validation=head(sets.validation, size), test=test)
        return InOrder(sets, batches.seed, batches.device)

    def drive(self, machine: Machine, around: Around) -> StopReason:
        """Until everything has grown and another step been taken."""
        run = machine.run
        for coming in machine.moves():
            if coming is State.DECIDE and run.grown_out and rested(run):
                break
        reason = machine.stop(StopReason.DEBUGGED)
        grown = ", ".join(event.stage for event in run.events) or "none is declared"
        tested = "and the test split" if run.test else "no test split"
        around.lines.append(
            f"fast_dev_run: {run.clock.step} steps on one batch; growths: {grown}; one evaluation"
            f" batch, {tested}; one checkpoint. Its figures are no result."
        )
        return reason


def rested(run: Run) -> bool:
    """Whether a step has been taken since the start or the last growth, and nothing is alive."""
    since = run.events[-1].moment.step if run.events else 0
    return run.clock.step > since and not run.living


@dataclass(frozen=True)
class OnceEach:
    """A growth policy's stages or options, each once, as soon as it can be."""

    policy: Growth

    keep_if = None

    @property
    def start(self) -> Mapping[str, int | float]:
        return self.policy.start

    @property
    def consolidate(self) -> Duration:
        return ONE if self.policy.consolidate.value else self.policy.consolidate

    @property
    def recurring(self) -> bool:
        return getattr(self.policy, "recurring", False)

    def next(self, run: Run) -> Stage | StopReason | None:
        if not rested(run):
            return None
        stage = self.upcoming(run)
        if isinstance(stage, Stage):
            self.policy.next(run)  # a condition on a metric that is not there is refused
        return stage

    def upcoming(self, run: Run) -> Stage | StopReason:
        options: Mapping[str, Operator] = getattr(self.policy, "options", None) or {}
        done = {event.stage for event in run.events} | set(passed_over(run))
        coming = {name: each for name, each in options.items() if name not in done}
        if options and not coming:
            return StopReason.STAGES_DONE
        stage = self.policy.upcoming(run) if not (options and run.events) else None
        if coming:
            return self._option(coming)
        if not isinstance(stage, Stage):
            return stage or StopReason.STAGES_DONE
        return StopReason.STAGES_DONE if stage.name in done else brief(stage)

    def _option(self, coming: Mapping[str, Operator]) -> Stage:
        """The first option that has not grown, or a trial of all of them."""
        each = {name: Stage(name, operator, _CAUSE) for name, operator in coming.items()}
        stage = next(iter(each.values()))
        choice: Any = getattr(self.policy, "choice", None)
        if not isinstance(choice, Trial):
            return stage
        return replace(stage, candidates=each, trial=replace(choice, steps=1, include_none=False))


def brief(stage: Stage) -> Stage:
    """The stage without a time, with candidates tried for one step."""
    trial = None if stage.trial is None else replace(stage.trial, steps=1, include_none=False)
    lasting = "1steps" if stage.consolidation else None
    each = {name: replace(one, consolidation=lasting) for name, one in stage.candidates.items()}
    made = replace(stage, at=None, consolidation=lasting, candidates=each, trial=trial)
    return made.because(_CAUSE)


@dataclass(frozen=True)
class BriefWarmup:
    """A warmup of which each phase lasts one step."""

    warmup: Warmup

    @property
    def preserves(self) -> bool:
        return self.warmup.preserves

    @property
    def zeroes(self) -> bool:
        return self.warmup.zeroes

    @property
    def blends(self) -> bool:
        return self.warmup.blends

    @property
    def isolates(self) -> bool:
        return self.warmup.isolates

    def lengths(self) -> Mapping[Phase, Duration]:
        return {phase: ONE for phase, each in self.warmup.lengths().items() if each.value}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return self.warmup.strength(phase, progress)


@dataclass(frozen=True)
class BriefSettle:
    """A settling that lasts one step."""

    settle: Settle

    @property
    def lasting(self) -> Duration:
        return ONE if self.settle.lasting.value else self.settle.lasting

    def factor(self, event: Event, clock: Clock) -> float:
        return self.settle.factor(event, clock)
