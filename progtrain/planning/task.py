"""`task=plan`: foresee a run, print it, and leave nothing but `plan.json` in its directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from progtrain.build import Parts
from progtrain.curriculum.sight import begin as begin_curriculum
from progtrain.data.sets import Batches
from progtrain.errors import GrowthError
from progtrain.growth.plan import by_shape, plan
from progtrain.growth.plan_checks import warnings
from progtrain.hardware.engine import Engine
from progtrain.planning.counted import without_values
from progtrain.planning.disk import check_disk, writing_seconds
from progtrain.planning.foresee import Foreseen, Foresight
from progtrain.planning.rehearse import undisturbed
from progtrain.planning.rows import Rehearsal
from progtrain.planning.totals import Storage, totals, with_seconds
from progtrain.run import Run
from progtrain.setup import Setup
from progtrain.start import new_setup

PLAN = "plan.json"


def foresee(parts: Parts, engine: Engine, batches: Batches, run: Run, directory: Path) -> Rehearsal:
    """The plan of `run`, which is left as it is, random numbers included.

    Raises what the run would raise at a growth, `ConfigError` for a plan that cannot be carried
    out, and `EnvironmentProblem` where memory or disk is too small for it.
    """
    setup, free = new_setup(parts, engine, batches), engine.free_memory()
    with undisturbed(setup):
        begin_curriculum(run, setup, ranked=False)
        foreseen, last = (
            _rehearsed(run, setup, parts) if parts.plan.rehearse else _counted(run, setup)
        )
        largest = max(row.checkpoint or 0 for row in foreseen.rows)
        need, disk_free = check_disk(directory, largest, parts.checkpoint.keep)
        writing = writing_seconds(last, engine, directory, parts.config) if last else 0.0
    storage = Storage(largest, need, disk_free, writing)
    return Rehearsal(
        rows=with_seconds(foreseen, setup, run),
        totals=totals(foreseen, setup, run, storage, free),
        rehearsed=parts.plan.rehearse,
        device=engine.facts(),
        warnings=list(dict.fromkeys([*warnings(run, setup), *foreseen.warnings])),
    )


def _rehearsed(run: Run, setup: Setup, parts: Parts) -> tuple[Foreseen, Run]:
    """By real steps; and the copy that has taken them."""
    plan(run, setup)
    foresight = Foresight(run, setup, parts.plan.steps)
    return foresight.go(), foresight.run


def _counted(run: Run, setup: Setup) -> tuple[Foreseen, None]:
    """By shapes alone; where a network or an operator looks at values, by growing real copies."""
    try:
        empty = without_values(run, setup)
        plan(empty, setup, by_shape)
        return Foresight(empty, setup, None, by_shape).go(), None
    except (GrowthError, NotImplementedError, RuntimeError):
        plan(run, setup)
        return Foresight(run, setup, None).go(), None


def write_plan(rehearsal: Rehearsal, directory: Path) -> Path:
    """Store `plan.json` in one piece."""
    path, part = directory / PLAN, directory / f".{PLAN}.{os.getpid()}"
    part.write_text(json.dumps(rehearsal.to_json(), indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path
