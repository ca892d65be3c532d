"""Declared stages in order: which have grown, which were passed over, which comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from progtrain.clock import Moment
from progtrain.errors import NothingToGrowError
from progtrain.run import Run, Stage

# In `Run.memory`:
_PASSED = "growth/passed"  # names of stages that found nothing to grow, or lost a trial
_DECLINED = "growth/declined"  # when a trial was last won by not growing

T = TypeVar("T")


def left(stages: Mapping[str, T], run: Run) -> list[tuple[str, T]]:
    """The stages to come."""
    passed = passed_over(run)
    done = len(run.grown) + len([name for name in stages if name in passed])
    return list(stages.items())[done:]


def passed_over(run: Run) -> list[str]:
    names = run.memory.get(_PASSED, [])
    return [str(name) for name in names] if isinstance(names, list) else []


def pass_over(run: Run, stage: Stage, error: NothingToGrowError) -> None:
    """A stage that finds nothing to grow in this network counts as over; raises the second time."""
    if stage.name in passed_over(run):
        raise error
    run.memory[_PASSED] = [*passed_over(run), stage.name]


def decline(run: Run, stage: Stage) -> None:
    """A trial was won by not growing: a declared stage is over, a budget has had its turn."""
    run.memory[_PASSED] = [*passed_over(run), stage.name]
    run.memory[_DECLINED] = asdict(run.clock.now)


def declined(run: Run) -> Moment | None:
    """When a trial was last won by not growing."""
    moment: Any = run.memory.get(_DECLINED)
    return Moment(**moment) if isinstance(moment, dict) else None
