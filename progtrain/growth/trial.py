"""Trial growth: every candidate is grown and trained a little, and the best of them really grows.

All of them start from the same network, optimizer, average of weights, random numbers, loss scale
and batches, and nothing of a trial stays but its cost, so the run goes on as if the winner had been
grown directly. What is compared is the loss on the validation split at the end of the trial, not
right after the surgery, where a candidate that begins silent cannot differ from the host.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from torch import nn

from progtrain.account import EVALUATION, GROWTH
from progtrain.boundary import grow
from progtrain.errors import GrowthError, NothingToGrowError, require
from progtrain.evaluation import evaluate
from progtrain.flops import forward_flops
from progtrain.growth.controls import Controls
from progtrain.growth.declared import decline
from progtrain.growth.grow import uncompiled
from progtrain.nonfinite import SKIPPED
from progtrain.report.many import Many
from progtrain.run import Run, Stage
from progtrain.settings import Nonfinite
from progtrain.setup import Setup, no_best
from progtrain.spent import Spent
from progtrain.state import random_numbers, set_random_numbers

if TYPE_CHECKING:
    from progtrain.growth.choice import Candidate
    from progtrain.growth.grow import Host

_METRIC = "val/loss"
NOT_GROWING = "not growing"

Train = Callable[[Run, Setup, int], None]  # so many optimizer steps, with what belongs to them


@dataclass(frozen=True)
class Trial:
    """How candidates are tried.

    A trial that is shorter than the warmup sees candidates at less than full strength, and any
    trial prefers what learns fast to what learns more in the end.
    """

    steps: int = 20  # optimizer steps of every candidate
    include_none: bool = False  # not growing is a candidate, too

    word, passes = "best tried", 0.0

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "a whole number >= 1")

    def best(self, host: Host, candidates: Sequence[Candidate]) -> Candidate:
        """What a plan shows, as nothing has been tried: the one that adds most parameters."""
        return max(candidates, key=lambda c: c.params)

    def cost(self, run: Run, candidates: Sequence[Candidate]) -> float:
        """FLOPs of trying them all from the network of now, its teachers included."""
        taught = sum(teacher.flops for teacher in run.teachers)
        grown = [(c.flops, c.cost) for c in candidates]
        if len(grown) + self.include_none < 2:
            return 0.0
        host = _look(run, uncompiled(run.model))
        looks = sum(host + 2 * _look(run, c.grown.model) for c in candidates)
        each = [*grown, (run.flops, 0.0)] if self.include_none else grown
        looks += host * self.include_none
        return looks + sum(
            cost + self.steps * run.batch_size * (flops + taught) for flops, cost in each
        )


def tried(run: Run, setup: Setup, stage: Stage, train: Train) -> Stage | None:
    """The candidate of `stage` that a trial finds best; controls are lifted.

    None where not growing was better (the stage is passed over) or where the run is interrupted,
    and is as it was. Raises `GrowthError` where no candidate can grow.
    """
    assert stage.trial is not None
    if len(stage.candidates) + stage.trial.include_none < 2:
        return next(iter(stage.candidates.values()))
    begun = time.perf_counter()
    scores, flops = dict[str, float](), 0.0
    failed: list[str] = []
    ways: dict[str, Stage | None] = dict(stage.candidates)
    for name, each in (ways | {NOT_GROWING: None} if stage.trial.include_none else ways).items():
        try:
            scores[name], cost = _score(run, setup, each, stage.trial.steps, train)
            flops += cost
        except GrowthError as error:
            failed.append(f"{name}: {error}")
            flops += error.flops
        if setup.interrupted():  # a resumed run tries them all again, and pays then
            return None
    run.clock.charge(GROWTH, flops, setup.engine.seconds_since(begun))
    if not scores.keys() - {NOT_GROWING}:
        raise NothingToGrowError(f"No candidate can grow. {' '.join(failed)}")
    return _winner(run, setup, stage, scores)


def _winner(run: Run, setup: Setup, stage: Stage, scores: dict[str, float]) -> Stage | None:
    assert stage.trial is not None
    best = min(scores, key=lambda name: scores[name])
    told = ", ".join(f"{name} {score:.4g}" for name, score in scores.items())
    length = f"{stage.trial.steps} step" + "s" * (stage.trial.steps > 1)
    text = f"{best} was the best of a trial of {length} ({_METRIC}: {told})"
    if best == NOT_GROWING:
        decline(run, stage)
        setup.reporter.noted(run, f"Stage {stage.name} is passed over: {text}")
        return None
    setup.reporter.noted(run, text)
    won = stage.candidates[best]
    return won.because(f"{won.cause}; {text}" if won.cause else text)


def _score(
    run: Run, setup: Setup, stage: Stage | None, steps: int, train: Train
) -> tuple[float, float]:
    """The loss at the end of a trial, and the FLOPs that it has cost; where growing fails, what it
    has cost until then is `flops` of the `GrowthError`."""
    with _untouched(setup) as quiet:
        trial = copied(run)
        try:
            if stage is not None:
                grow(trial, quiet, stage, Controls(trial.model, trial.events, quiet.warmup))
            train(trial, quiet, steps)
        except GrowthError as error:
            error.flops += _spent(trial, run)
            raise
        look = _look(trial, uncompiled(trial.model))
        seen = evaluate(replace(trial, average=None), quiet, quiet.batches.sets.validation, "val")
    skipped = trial.memory.get(SKIPPED) != run.memory.get(SKIPPED)
    loss = inf if skipped else seen[_METRIC]
    return loss if isfinite(loss) else inf, _spent(trial, run) + look


def _spent(trial: Run, run: Run) -> float:
    """FLOPs of a trial so far: its evaluations, which a run makes for itself, are the growth's."""
    looks = [each.clock.account.flops.get(EVALUATION, 0) for each in (trial, run)]
    return trial.clock.now.flops - run.clock.now.flops + looks[0] - looks[1]


def _look(run: Run, model: nn.Module) -> float:
    """FLOPs of an evaluation; nothing hangs on the network."""
    return forward_flops(model, run.probe.x) * run.evaluated


@contextmanager
def _untouched(setup: Setup) -> Generator[Setup]:
    """A setup that reports, stores and undoes nothing; what is global is as before afterwards."""
    numbers, scaler = random_numbers(setup.engine), copy.deepcopy(setup.engine.scaler.state_dict())
    growth: Any = setup.growth
    try:
        kept = replace(growth, keep_if=None) if setup.undoes else growth
        quiet = replace(
            setup, growth=kept, reporter=Many([]), save=lambda run: None, save_best=no_best
        )
        skipping = Nonfinite("skip", in_a_row=None, most=None)
        yield replace(quiet, monitors={}, nonfinite=skipping)
    finally:
        set_random_numbers(numbers, setup.engine)
        if scaler:
            setup.engine.scaler.load_state_dict(scaler)


def copied(run: Run) -> Run:
    """A run that shares nothing that training or growing would change; controls are lifted."""
    model, optimizer, average = copy.deepcopy((run.model, run.optimizer, run.average))
    return replace(
        run,
        model=model,
        optimizer=optimizer,
        average=average,
        clock=replace(run.clock),
        events=list(run.events),
        history=list(run.history),
        memory=copy.deepcopy(run.memory),
        ways_back={},
        recent=None,
        anchors=[],
        spent=Spent(),
    )
