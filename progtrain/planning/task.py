"""`task=plan`: foresee a run, print it, and leave nothing but `plan.json` in its directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from progtrain.build import Parts
from progtrain.curriculum.sight import begin as begin_curriculum
from progtrain.data.sets import Batches
from progtrain.growth.plan import plan, warnings
from progtrain.hardware.engine import Engine
from progtrain.planning.disk import check_disk, writing_seconds
from progtrain.planning.fit import fitting
from progtrain.planning.foresee import Foresight
from progtrain.planning.rehearse import undisturbed
from progtrain.planning.rows import Rehearsal
from progtrain.planning.totals import Storage, totals, with_seconds
from progtrain.run import Run
from progtrain.start import new_setup

PLAN = "plan.json"


def foresee(parts: Parts, engine: Engine, batches: Batches, run: Run, directory: Path) -> Rehearsal:
    """The plan of `run`, which is left as it is, random numbers included.

    Raises what the run would raise at a growth, `ConfigError` for a plan that cannot be carried
    out, and `EnvironmentProblem` where memory or disk is too small for it.
    """
    setup = new_setup(parts, engine, batches)
    free = engine.free_memory()
    with undisturbed(setup):
        begin_curriculum(run, setup, ranked=False)
        told = warnings(run, setup) if plan(run, setup) else []
        return _foreseen(parts, engine, batches, run, directory, free, told)


def _foreseen(
    parts: Parts,
    engine: Engine,
    batches: Batches,
    run: Run,
    directory: Path,
    free: int | None,
    told: list[str],
) -> Rehearsal:
    setup, planning = new_setup(parts, engine, batches), parts.plan
    foresight = Foresight(run, setup, planning.steps if planning.rehearse else None)
    foreseen = foresight.go()
    largest = max(row.checkpoint or 0 for row in foreseen.rows)
    need, disk_free = check_disk(directory, largest, parts.checkpoint.keep)
    writing = 0.0
    if planning.rehearse:
        with fitting("the last checkpoint", foreseen.rows, setup):
            writing = writing_seconds(foresight.run, engine, directory, parts.config)
    storage = Storage(largest, need, disk_free, writing)
    return Rehearsal(
        rows=with_seconds(foreseen, setup, run),
        totals=totals(foreseen, setup, run, storage, free),
        rehearsed=planning.rehearse,
        device=engine.facts(),
        warnings=list(dict.fromkeys([*told, *foreseen.warnings])),
    )


def write_plan(rehearsal: Rehearsal, directory: Path) -> Path:
    """Store `plan.json` in one piece."""
    path, part = directory / PLAN, directory / f".{PLAN}.{os.getpid()}"
    part.write_text(json.dumps(rehearsal.to_json(), indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path
