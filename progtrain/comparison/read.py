"""Folders of runs as they lie on disk: results, curves, growths, and what a study says of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from progtrain.comparison.result import Growth, Kind, Row, RunOf
from progtrain.errors import ConfigError
from progtrain.report.outcomes import SEED, Job, read_job
from progtrain.report.rows import number_in, read_object, read_rows, read_settings
from progtrain.study.file import Study, read

_NO_SETTINGS = ("resume", "task", "runs")  # of the command, not of the run
_INSIDE = ("checkpoints", "plots")  # folders that hold no runs


@dataclass(frozen=True)
class Found:
    """A run, and what only the comparison needs to know of it."""

    run: RunOf
    settings: Mapping[str, str]
    metric: str
    mode: str
    grows: bool  # growths were planned or made
    stop: str  # name of a StopReason; empty where it told none
    config: Mapping[str, object]  # every setting by its full name, as the run has stored it
    rates: tuple[float, float] | None  # largest learning rate of the evaluations, and the last
    peak_mib: float | None
    uncharged: str  # what the network started from whose cost is not in `flops`; empty: nothing
    study: str = ""  # name of the study that it belongs to
    arm: str = ""  # of a study
    kind: Kind | None = None  # of a study
    overridden: frozenset[str] = field(default_factory=lambda: frozenset[str]())


def read_runs(folders: Sequence[Path]) -> tuple[list[Found], list[Study]]:
    """Every run in the folders, at any depth, and the studies that they belong to.

    Raises `ConfigError` for a folder that is not there, holds no run, or whose study.json cannot
    be read.
    """
    found: dict[Path, Found] = {}
    studies: dict[Path, Study] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"runs={folder} is no directory. It takes the folder of a run, of a sweep or of a"
                " study, several as runs=[a,b], or a pattern in quotes."
            )
        places = list(_places(folder))
        if not places:
            raise ConfigError(
                f"runs={folder} holds no run: no folder in it has a result.json. Name the output"
                " directory of a run (outputs/<date>/<time>), a sweep or a study."
            )
        for place in places:
            study = _study_of(place, studies)
            found.setdefault(place.resolve(), _read(place, study))
    return list(found.values()), list(studies.values())


def _places(folder: Path) -> Iterator[Path]:
    """Folders of runs, in the order of their names, numbers as numbers."""
    if _is_run(folder):
        yield folder
        return
    inner = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    for place in sorted(inner, key=_order):
        if place.name not in _INSIDE and not place.name.endswith("_plots"):
            yield from _places(place)


def _is_run(folder: Path) -> bool:
    if (folder / "result.json").exists():
        return True
    return (folder / ".hydra").is_dir() and not (folder / "multirun.yaml").exists()


def _order(path: Path) -> tuple[bool, int, str]:
    digits = path.name.removeprefix("seed_")
    number = int(digits) if digits.isdecimal() else -1
    return number < 0, number, path.name


def _study_of(place: Path, known: dict[Path, Study]) -> tuple[Path, Study] | None:
    """The study whose directory holds the run two levels up: `<study>/<arm>/seed_<n>`."""
    root = Path(os.path.abspath(place)).parent.parent
    if root not in known:
        study = read(root)
        if study is None:
            return None
        known[root] = study
    return root, known[root]


def _read(place: Path, of: tuple[Path, Study] | None) -> Found:
    job = read_job(place)
    result = read_object(place / "result.json")
    events = list(read_rows(place / "events.jsonl"))
    rows = list(read_rows(place / "metrics.jsonl"))
    started = next((row for row in events if row.get("kind") == "started"), {})
    metric = job.metric_name or str(started.get("metric_name", ""))
    settings = {k: v for k, v in job.settings.items() if k not in _NO_SETTINGS and v != "None"}
    arm = os.path.basename(os.path.dirname(os.path.abspath(place))) if of else ""
    plan, config = started.get("plan"), _config(place)
    return Found(
        run=_run_of(place, job, result, rows, events, metric),
        settings={k: v for k, v in settings.items() if k != SEED},
        overridden=job.overridden - {*_NO_SETTINGS, SEED},
        metric=metric,
        mode=str(result.get("mode") or started.get("mode") or "max"),
        grows=_grows(job, plan),
        stop=str(result.get("stop") or ""),
        config=config,
        rates=_rates(rows),
        peak_mib=_peak(result, rows),
        uncharged=_uncharged(started, settings, config),
        study=of[1].name if of and arm in of[1].kinds else "",
        arm=arm if of and arm in of[1].kinds else "",
        kind=of[1].kinds.get(arm) if of else None,
    )


def _run_of(
    place: Path,
    job: Job,
    result: Mapping[str, object],
    rows: Sequence[Mapping[str, object]],
    events: Sequence[Mapping[str, object]],
    metric: str,
) -> RunOf:
    seed = number_in(result, SEED)
    if seed is None and job.settings.get(SEED, "").isdecimal():
        seed = int(job.settings[SEED])
    status, error = job.status, job.error
    if rows and not (place / "result.json").exists():
        status, error = "interrupted", "It left no result.json: it still runs, or it was killed."
    return RunOf(
        folder=str(place),
        seed=None if seed is None else int(seed),
        status=status,
        quality=number_in(result, "metric"),
        flops=number_in(result, "flops"),
        seconds=number_in(result, "seconds"),
        steps=number_in(result, "steps"),
        params=number_in(result, "params"),
        rows=tuple(_curve(rows, metric)),
        growths=tuple(_growths(events, result)),
        error=error,
    )


def _curve(rows: Sequence[Mapping[str, object]], metric: str) -> Iterator[Row]:
    for row in rows:
        step, flops, seconds, quality = (
            number_in(row, name) for name in ("step", "flops", "seconds", metric)
        )
        if None not in (step, flops, seconds, quality):
            assert step is not None and flops is not None
            assert seconds is not None and quality is not None
            yield Row(int(step), flops, seconds, quality)


def _growths(
    events: Sequence[Mapping[str, object]], result: Mapping[str, object]
) -> Iterator[Growth]:
    """Those that lasted."""
    lives = result.get("growth_lives")
    each = [life for life in lives if isinstance(life, dict)] if isinstance(lives, list) else []
    undone = {life.get("index") for life in each if life.get("undone")}
    for row in events:
        params = number_in(row, "params_after")
        if row.get("kind") == "growth" and row.get("index") not in undone and params is not None:
            step, flops, seconds = (number_in(row, n) or 0.0 for n in ("step", "flops", "seconds"))
            yield Growth(str(row.get("stage", "")), int(step), flops, seconds, params)


def _grows(job: Job, plan: object) -> bool:
    """Whether growths were planned or made."""
    planned = isinstance(plan, list) and len(plan) > 1
    chosen = job.settings.get("growth", "none") != "none"
    return planned or chosen or bool(job.growths)


def _uncharged(
    started: Mapping[str, object], settings: Mapping[str, str], config: Mapping[str, object]
) -> str:
    """Weights from elsewhere, or a first step that is not the first and has cost nothing."""
    weights = settings.get("model.weights") or config.get("model.weights")
    if weights not in (None, "null", ""):
        return f"model.weights={weights}"
    if (number_in(started, "step") or 0) > 0 and not number_in(started, "flops"):
        return "a checkpoint of another run"
    return ""


def _rates(rows: Sequence[Mapping[str, object]]) -> tuple[float, float] | None:
    """The largest learning rate and the last one, over all groups of parameters."""
    seen = [
        [v for k in row if k.startswith("learning_rate/") and (v := number_in(row, k)) is not None]
        for row in rows
    ]
    largest = [max(rates) for rates in seen if rates]
    return (max(largest), largest[-1]) if len(largest) > 1 else None


def _peak(result: Mapping[str, object], rows: Sequence[Mapping[str, object]]) -> float | None:
    name, measured = "memory/peak_mib", result.get("measured")
    told = number_in(measured, name) if isinstance(measured, dict) else None
    known = [v for row in rows if (v := number_in(row, name)) is not None]
    return told if told is not None else max(known, default=None)


def _config(place: Path) -> dict[str, object]:
    """Every setting by its full name; nothing where the run has stored none."""
    return read_settings(place / "config.yaml") or read_settings(place / ".hydra" / "config.yaml")
