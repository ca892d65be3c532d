"""Declared stages in order: which have grown, which were passed over, which comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from progtrain.errors import NothingToGrowError
from progtrain.run import Run, Stage

_PASSED = "growth/passed"  # in `Run.memory`: names of stages that found nothing to grow

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
