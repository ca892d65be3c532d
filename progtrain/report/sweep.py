"""A multirun as one table, with the spread between seeds and how far to trust it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from progtrain.report import units
from progtrain.report.files import strict
from progtrain.report.narrow import fitting, plain_console
from progtrain.report.outcomes import (
    DONE,
    SEED,
    Job,
    Spread,
    caution,
    columns,
    read_jobs,
    spreads,
    varying,
    winners,
)

# what a table may lose, first to last, on a terminal that is too narrow for it
_EXPENDABLE = ("seconds", "best", "growths", "FLOPs")
_FIGURES = ("metric_name", "metric", "best_metric", "growths", "params", "flops", "seconds")


def print_comparison(sweep_dir: Path, console: Console | None = None) -> None:
    """Print the jobs of a multirun side by side; write and name `comparison.json` and `.csv`."""
    console = console or plain_console()
    jobs = read_jobs(sweep_dir)
    names = varying(jobs)
    unseeded = [name for name in names if name != SEED]
    groups = spreads(jobs, unseeded)
    sentence = caution(groups)
    with console.capture() as capture:
        _print_table(console, _job_rows(jobs, names), winners(jobs))
        if any(group.n + group.not_done > 1 for group in groups):
            console.print()
            _print_table(console, _spread_rows(groups, unseeded), frozenset())
        for job in jobs:
            if job.status != DONE:
                told = f"job {job.name} {job.status}: {job.error or 'its numbers are left out.'}"
                console.print(Text(told, style="red"), soft_wrap=True)
        console.print(Text(sentence, style="bold"), soft_wrap=not console.is_terminal)
    print(units.encodable(capture.get(), console.encoding), end="", file=console.file, flush=True)
    files = sweep_dir / "comparison.json", sweep_dir / "comparison.csv"
    _write_json(files[0], jobs, names, groups, unseeded, sentence)
    _write_csv(files[1], jobs, names)
    compare = f"compare: progtrain task=compare {units.assigned('runs', sweep_dir)}"
    for line in (*units.written(files), compare):
        print(
            units.encodable(units.one_line(line), console.encoding), file=console.file, flush=True
        )


def _job_rows(jobs: Sequence[Job], names: Sequence[str]) -> list[dict[str, str]]:
    """One row a job, `{column: cell}`."""
    metrics = list(dict.fromkeys(job.metric_name for job in jobs if job.metric_name))
    final = metrics[0] if len(metrics) == 1 else "final"
    return [
        {
            "job": job.name,
            **{name: job.settings.get(name, units.MISSING) for name in names},
            **({"metric": job.metric_name} if len(metrics) > 1 else {}),
            final: units.metric(job.metric),
            "best": units.metric(job.best_metric),
            **{name: units.metric(job.columns.get(name)) for name in columns(jobs)},
            "growths": _whole(job.growths),
            "params": _whole(job.params),
            "FLOPs": _flops(job.flops),
            "seconds": _seconds(job.seconds),
            "status": job.status,
        }
        for job in jobs
    ]


def _spread_rows(groups: Sequence[Spread], names: Sequence[str]) -> list[dict[str, str]]:
    further = list(dict.fromkeys(name for group in groups for name in group.columns))
    return [
        {
            **dict(zip(names, (cell or units.MISSING for cell in group.settings), strict=True)),
            "final, mean ± std": _mean(group.mean, group.deviation),
            **{f"{n}, mean ± std": _mean(*group.columns.get(n, (None, None))) for n in further},
            "n": f"{group.n}",
            "not done": f"{group.not_done}",
            "params": _whole(group.params),
            "FLOPs": _flops(group.flops),
            "seconds": _seconds(group.seconds),
        }
        for group in groups
    ]


def _print_table(console: Console, rows: Sequence[dict[str, str]], winners: frozenset[str]) -> None:
    """The rows in as many columns as the console holds; nothing is cut inside a cell."""
    columns, left_out = fitting(
        console, list(rows[0]) if rows else ["job"], _EXPENDABLE,
        lambda kept: _table(rows, kept, winners),
    )  # fmt: skip
    console.print(_table(rows, columns, winners))
    if winners:
        console.print(Text("* best final metric", style="dim"))
    if left_out:
        told = f"Left out for width: {', '.join(left_out)}; comparison.csv has all."
        console.print(Text(told, style="dim"))


def _table(
    rows: Sequence[dict[str, str]], columns: Sequence[str], winners: frozenset[str]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        won = row.get("job") in winners
        cells = [row[name] for name in columns]
        if won:
            cells[0] += " *"
        style = "bold green" if won else "red" if row.get("status", DONE) != DONE else ""
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def _mean(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return units.MISSING
    return f"{units.metric(mean)} ± {units.metric(deviation)}"


def _whole(value: float | None) -> str:
    return units.MISSING if value is None else f"{value:,.0f}"


def _flops(value: float | None) -> str:
    return units.MISSING if value is None else units.flops(value)


def _seconds(value: float | None) -> str:
    return units.MISSING if value is None else units.seconds(value)


def _write_json(
    path: Path,
    jobs: Sequence[Job],
    names: Sequence[str],
    groups: Sequence[Spread],
    unseeded: Sequence[str],
    sentence: str,
) -> None:
    best = winners(jobs)
    content = strict(
        {
            "varying": [*names],
            "jobs": [
                {
                    "job": job.name,
                    "settings": {**job.settings},
                    "status": job.status,
                    "error": job.error,
                    "is_best": job.name in best,
                    **{figure: getattr(job, figure) for figure in _FIGURES},
                    **({"columns": {**job.columns}} if job.columns else {}),
                }
                for job in jobs
            ],
            "over_seeds": [
                {**asdict(group), "settings": dict(zip(unseeded, group.settings, strict=True))}
                for group in groups
            ],
            "caution": sentence,
        },
        indent=2,
    )
    path.write_text(content + "\n", encoding="utf-8")


def _write_csv(path: Path, jobs: Sequence[Job], names: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        further = columns(jobs)
        writer.writerow(["job", *names, *_FIGURES, *further, "status", "error"])
        for job in jobs:
            settings = [job.settings.get(name, "") for name in names]
            figures = [getattr(job, figure) for figure in _FIGURES]
            figures += [job.columns.get(name) for name in further]
            writer.writerow([job.name, *settings, *figures, job.status, job.error])
