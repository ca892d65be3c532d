"""The jobs of a multirun as they lie on disk, and what they say together.

No torch here: comparing finished runs must be instant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import yaml

from progtrain.report.units import metric, one_line

DONE = "done"
SEED = "seed"


@dataclass(frozen=True)
class Job:
    """One job's outcome; None is what the job did not tell."""

    name: str
    settings: Mapping[str, str]  # groups, overrides and seed: what was asked of it
    overridden: frozenset[str]  # the settings that the command line named
    status: str
    error: str = ""
    metric_name: str = ""
    mode: str = "max"
    metric: float | None = None
    best_metric: float | None = None
    growths: float | None = None
    params: float | None = None
    flops: float | None = None
    seconds: float | None = None
    # metrics that its settings ask for beside the primary one (train.columns); None: not measured
    columns: Mapping[str, float | None] = field(default_factory=lambda: dict[str, float | None]())


@dataclass(frozen=True)
class Spread:
    """Jobs that differ in nothing but the seed."""

    settings: tuple[str, ...]  # in the order of the varying settings
    n: int
    not_done: int
    mean: float | None
    deviation: float | None  # of the sample, so it needs two
    params: float | None
    flops: float | None
    seconds: float | None
    columns: Mapping[str, tuple[float | None, float | None]]  # mean and deviation of each


def read_jobs(sweep_dir: Path) -> list[Job]:
    """Every job folder, in the order the jobs ran."""
    folders = [
        folder
        for folder in sweep_dir.iterdir()
        if folder.is_dir() and ((folder / "result.json").exists() or (folder / ".hydra").exists())
    ]
    return [read_job(folder) for folder in sorted(folders, key=_job_order)]


def read_job(folder: Path) -> Job:
    """One job; one that left no readable result has failed, whatever the reason."""
    try:
        told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        problem = "" if isinstance(told, dict) else "result.json is no object."
    except FileNotFoundError:
        told, problem = {}, "It left no result.json; its log says why."
    except ValueError:
        told, problem = {}, "Its result.json is not readable."
    result: Mapping[str, object] = {} if problem else told
    overrides = _overrides(folder, result)
    choices = result.get("choices")
    settings = {k: str(v) for k, v in choices.items()} if isinstance(choices, dict) else {}
    if SEED in result:
        settings[SEED] = str(result[SEED])
    return Job(
        name=folder.name,
        settings={**settings, **overrides},
        overridden=frozenset(overrides),
        status="failed" if problem else str(result.get("status", "failed")),
        error=problem or one_line(str(result.get("error", ""))),
        metric_name=str(result.get("metric_name", "")),
        mode=str(result.get("mode", "max")),
        metric=_number(result, "metric"),
        best_metric=_number(result, "best_metric"),
        growths=_number(result, "growths"),
        params=_number(result, "params"),
        flops=_number(result, "flops"),
        seconds=_number(result, "seconds"),
        columns=_columns(result),
    )


def columns(jobs: Sequence[Job]) -> list[str]:
    """The further metrics that the jobs show, each once; what is the primary one of all is none."""
    primary = {job.metric_name for job in jobs if job.metric_name}
    named = dict.fromkeys(name for job in jobs for name in job.columns)
    return [name for name in named if primary != {name}]


def varying(jobs: Sequence[Job]) -> list[str]:
    """The settings in which the jobs differ, the seed last.

    A job that failed early may not tell its choices; only a setting named on some command lines
    counts as different where another job lacks it.
    """
    names = list(dict.fromkeys(name for job in jobs for name in job.settings))

    def differs(name: str) -> bool:
        values = {job.settings[name] for job in jobs if name in job.settings}
        missing = any(name not in job.settings for job in jobs)
        return len(values) > 1 or (missing and any(name in job.overridden for job in jobs))

    return sorted((name for name in names if differs(name)), key=lambda name: name == SEED)


def winners(jobs: Sequence[Job]) -> frozenset[str]:
    """Names of the jobs with the best final metric; none where the jobs measured different ones."""
    done = [job for job in jobs if job.status == DONE and job.metric is not None]
    if len({(job.metric_name, job.mode) for job in done}) != 1:
        return frozenset()
    values = [job.metric for job in done if job.metric is not None]
    best = max(values) if done[0].mode == "max" else min(values)
    return frozenset(job.name for job in done if job.metric == best)


def spreads(jobs: Sequence[Job], names: Sequence[str]) -> list[Spread]:
    """Jobs grouped over the seed; `names` are the varying settings without it."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(tuple(job.settings.get(name, "") for name in names), []).append(job)
    return [_spread(settings, group) for settings, group in groups.items()]


def caution(groups: Sequence[Spread]) -> str:
    """How far the numbers can be trusted, in one sentence."""
    counts = [group.n for group in groups if group.n]
    if not counts:
        return "No job finished, so there is nothing to compare."
    if max(counts) == 1:
        return (
            "One seed per setting: a difference within the spread between seeds means nothing, and"
            " one seed cannot show that spread. Add seed=0,1,2."
        )
    fewest, most = min(counts), max(counts)
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    widest = max(group.deviation for group in groups if group.deviation is not None)
    return (
        f"{seeds} per setting: a difference within the spread between seeds (standard deviation up"
        f" to {metric(widest)}) means nothing."
    )


def _spread(settings: tuple[str, ...], group: Sequence[Job]) -> Spread:
    done = [job for job in group if job.status == DONE and job.metric is not None]
    values = [job.metric for job in done if job.metric is not None]
    return Spread(
        settings=settings,
        n=len(values),
        not_done=len(group) - len(values),
        mean=fmean(values) if values else None,
        deviation=stdev(values) if len(values) > 1 else None,
        params=_mean([job.params for job in done]),
        flops=_mean([job.flops for job in done]),
        seconds=_mean([job.seconds for job in done]),
        columns={n: _over_seeds([job.columns.get(n) for job in done]) for n in columns(group)},
    )


def _over_seeds(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    return _mean(known), stdev(known) if len(known) > 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _number(result: Mapping[str, object], name: str) -> float | None:
    value = result.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _columns(result: Mapping[str, object]) -> dict[str, float | None]:
    """Every metric that was asked for, at the end; those of the test split lie beside."""
    named, seen = result.get("columns"), dict[str, object]()
    for part in (result.get("metrics"), result.get("test")):
        seen |= part if isinstance(part, dict) else {}
    return {str(name): _number(seen, name) for name in named} if isinstance(named, list) else {}


def _overrides(folder: Path, result: Mapping[str, object]) -> dict[str, str]:
    """`{setting: value}` as typed; from Hydra's own file where the result does not tell."""
    listed = result.get("overrides")
    path = folder / ".hydra" / "overrides.yaml"
    if not isinstance(listed, list) and path.exists():
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    items = listed if isinstance(listed, list) else []
    pairs = [str(item).lstrip("+").partition("=") for item in items]
    return {name: value for name, _, value in pairs if not name.startswith("hydra")}


def _job_order(folder: Path) -> tuple[bool, int, str]:
    is_number = folder.name.isdecimal()
    return not is_number, int(folder.name) if is_number else 0, folder.name
