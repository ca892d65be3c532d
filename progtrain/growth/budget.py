"""Grow until a budget is spent: at each turn the best declared option that still fits.

The budget is a number of parameters, of training FLOPs or of seconds, or several at once; FLOPs
and seconds are charged as if the grown network trained to the end of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from torch import nn

from progtrain.clock import Duration, Unit
from progtrain.contracts import Operator, Trigger
from progtrain.curriculum.forecast import UNKNOWN, stretches
from progtrain.curriculum.sight import view_flops
from progtrain.errors import ConfigError, GrowthError, require
from progtrain.flops import check_flops, num_params, training_flops
from progtrain.growth.choice import Candidate, Choice
from progtrain.growth.declared import declined
from progtrain.growth.grow import Host, grow, running
from progtrain.growth.policy import Policy
from progtrain.growth.trial import Trial
from progtrain.run import Run, Stage, StopReason


@dataclass(frozen=True)
class Budget(Policy):
    """Options by name; with no limit given the full model's parameters are the budget."""

    trigger: Trigger
    options: Mapping[str, Operator]
    choice: Choice
    max_params: int | None = None  # parameters
    max_flops: float | None = None  # training FLOPs of the whole run
    max_seconds: float | None = None  # of training
    max_stages: int | None = None  # at most so many growths

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.options), "options", {}, "at least one named operator")
        for name in ("max_params", "max_flops", "max_seconds", "max_stages"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a number > 0, or null for no limit")

    def next(self, run: Run) -> Stage | StopReason | None:
        if run.living:
            return None
        if self._rests(run) or not self.trigger.due(run):
            return None
        stage = self.upcoming(run)
        waits = stage is StopReason.BUDGET and any(self.embargoed(run, n) for n in self.options)
        return None if waits else stage

    def upcoming(self, run: Run) -> Stage | StopReason:
        limit = self._param_limit(run)
        if limit is not None and not run.events:
            hint = f"The start model has {run.params:,} parameters; raise it or shrink growth.start"
            require(run.params <= limit, "max_params", limit, f"at least {run.params}", hint)
            self._check_room(run)
        if self.max_stages is not None and len(run.grown) >= self.max_stages:
            return StopReason.MAX_STAGES
        free = {n: each for n, each in self.options.items() if not self.embargoed(run, n)}
        if not free:
            return StopReason.BUDGET
        host = Host.of(run)
        found = self._candidates(run, host, free)
        trial = self.choice.cost(run, found) if isinstance(self.choice, Trial) else 0.0
        probed = self._probed(run, found)
        fitting = [c for c in found if self._fits(run, c, trial + probed)]
        if not fitting:
            return StopReason.BUDGET
        best = self.choice.best(host, fitting)
        stage = Stage(best.name, best.operator, self._cause(run, best), probed=probed)
        if not isinstance(self.choice, Trial):
            return stage
        each = {c.name: Stage(c.name, c.operator, self._cause(run, c)) for c in fitting}
        return replace(stage, candidates=each, trial=self.choice)

    def _probed(self, run: Run, found: Sequence[Candidate]) -> float:
        """FLOPs of growing every candidate on a copy and of the choice's look at it."""
        own = sum(c.operator.flops(c.grown) for c in found)
        return own + self.choice.passes * len(run.probe.x) * sum(c.flops for c in found)

    def _rests(self, run: Run) -> bool:
        """Whether a trial has just been won by not growing; it rests as if a growth were undone."""
        since = declined(run)
        if since is None:
            return False
        rest = Duration.parse(self.embargo, "embargo")
        return since.step == run.clock.step or run.clock.progress(since, rest) < 1

    def _candidates(self, run: Run, host: Host, options: Mapping[str, Operator]) -> list[Candidate]:
        found: list[Candidate] = []
        reasons: list[str] = []
        for name, operator in options.items():
            try:
                with running(name):
                    grown = grow(host, operator, run.seed + len(run.events))
                    flops = training_flops(grown.model, run.probe.x)
                    cost = operator.flops(grown)
                    cost += check_flops(host.model, grown.model, run.probe.x)
            except GrowthError as error:  # one option may not suit what another has grown
                reasons.append(f"{name}: {error}")
                continue
            found.append(Candidate(name, operator, grown, num_params(grown.model), flops, cost))
        if not found:
            raise GrowthError("No option of growth.options can grow. " + " ".join(reasons))
        return found

    def _check_room(self, run: Run) -> None:
        """Without a limit the full model is the budget, and a start at full size spends it all."""
        if self._unlimited and run.params >= run.full_params:
            raise ConfigError(
                f"growth=budget has nothing to spend: the start model has all {run.params:,}"
                " parameters of the full one, which are the budget where none is given. Set"
                f" growth.max_params, such as growth.max_params={2 * run.params}, or"
                " growth.max_flops, growth.max_seconds or a smaller growth.start."
            )

    @property
    def _unlimited(self) -> bool:
        return self.max_params is None and self.max_flops is None and self.max_seconds is None

    def _param_limit(self, run: Run) -> int | None:
        return run.full_params if self._unlimited else self.max_params

    def _fits(self, run: Run, candidate: Candidate, trial: float) -> bool:
        limit = self._param_limit(run)
        if limit is not None and candidate.params > limit:
            return False
        now, in_seconds = run.clock.now, run.clock.total.unit is Unit.SECOND
        limits_flops, limits_seconds = self.max_flops is not None, self.max_seconds is not None
        if not now.step and (limits_seconds or (limits_flops and in_seconds)):
            return not run.events  # no step has been timed: a plan cannot see further
        model = candidate.grown.model
        flops = now.flops + trial + candidate.cost + flops_left(run, model)
        pace = now.seconds / now.flops if now.flops else 0.0
        seconds = now.seconds + trial * pace + seconds_left(run, model)
        return flops <= (self.max_flops or inf) and seconds <= (self.max_seconds or inf)

    def _cause(self, run: Run, best: Candidate) -> str:
        words = [f"the {self.choice.word} option that fits"]
        limit = self._param_limit(run)
        if limit is not None:
            words.append(f"{limit - best.params:,} of {limit:,} parameters left afterwards")
        if self.max_flops is not None:
            total = run.clock.now.flops + best.cost + flops_left(run, best.grown.model)
            words.append(f"{self.max_flops - total:.3g} of {self.max_flops:.3g} FLOPs left")
        if self.max_seconds is not None:
            words.append(f"{self.max_seconds:g} s in all")
        return ", ".join(words)


def flops_left(run: Run, model: nn.Module) -> float:
    """FLOPs until the end of the run with `model`; steps are whole ones, of what they will see."""
    clock, now = run.clock, run.clock.now
    if clock.total.unit not in UNKNOWN:
        ahead = stretches(run, lambda view: view_flops(model, run, view))
        return sum(each.steps * each.batch_size * each.flops for each in ahead)
    step = run.batch_size * view_flops(model, run, run.view)
    left = clock.total.value * (1 - clock.fraction)
    if clock.total.unit is Unit.FLOP:
        return left + step  # the last step may go beyond the end
    return ceil(left * now.step / now.seconds) * step if now.seconds else 0.0


def seconds_left(run: Run, model: nn.Module) -> float:
    """Seconds until the end of the run, if a FLOP takes as long as it has taken so far."""
    clock, now = run.clock, run.clock.now
    if clock.total.unit is Unit.SECOND:
        return clock.total.value * (1 - clock.fraction)
    return flops_left(run, model) * now.seconds / now.flops if now.flops else 0.0
