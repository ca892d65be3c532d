"""How many of torchvision's and timm's networks grow exactly: a table in Markdown.

    python benchmarks/coverage.py torchvision|timm [--models a,b] [--jobs N] [--json FILE]

Every network has random weights and no trivial state (statistics, gains, layer scales, what starts
at zero), residual branches that are small, as training keeps them, float64, its smallest image,
batch 2. `noise` is what rounding the input a few times more does to the output: no error can be
less where an operator changes the order of a sum. Grown through the real API are all hidden spaces
in one edit and all streams between blocks in one edit (widen=zero, or duplicate where a norm allows
only that) and every stack (deepen=identity, or deepen=random behind a ramp where a block cannot be
the identity); the output may move by 1e-10 of its maximum (1e-4 in float32, for the largest and
those that do not run in float64). The grown networks then train for at most eight steps each, in
which all that learned before and all that is new must move. A network counts if every kind of
growth that it has room for does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from coverage_checks import check
from coverage_models import names
from coverage_report import Outcome, Report

_STARTING = threading.Lock()
HEADER = """\
| model | spaces | noise | hidden | streams | depth | trains wider | trains deeper | s |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suite", choices=["torchvision", "timm"])
    parser.add_argument("--models", default="", help="names, separated by commas")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--verbose", action="store_true", help="say why spaces are fixed")
    parser.add_argument("--limit", type=float, default=180, help="seconds for a model")
    parser.add_argument("--jobs", type=int, default=1, help="so many models at once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [n for n in options.models.split(",") if n] or names(options.suite)
    reports: list[Report] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(apart, options.suite, name, options.limit) for name in chosen]
        for done in as_completed(running):
            reports.append(done.result())
            print(row(reports[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps([r.to_json() for r in reports], indent=1))
    print(table(options.suite, sorted(reports, key=lambda r: r.model), options.verbose))


def apart(suite: str, name: str, limit: float) -> Report:
    """Check one network in a process of its own, which frees its memory."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_work, args=(suite, name, there))
    begun = time.perf_counter()
    with _STARTING:  # libraries lock something of theirs while the process forks
        process.start()
    there.close()
    try:
        if not wait([here, process.sentinel], limit):
            raise EOFError(f"it takes longer than {limit:.0f} s")
        if not here.poll():
            raise EOFError
        return Report.from_json(here.recv())
    except EOFError as error:
        reason = str(error) or "its process died"
        return Report(name, failure=reason, seconds=time.perf_counter() - begun)
    finally:
        process.kill()
        process.join()


def _work(suite: str, name: str, there: Connection) -> None:
    warnings.simplefilter("ignore")
    try:
        report = check(suite, name)
    except Exception as error:
        report = Report(name, failure=f"{type(error).__name__}: {error}")
    there.send(report.to_json())


def row(report: Report) -> str:
    if report.failure:
        return f"| {report.model} | **{report.failure}** | | | | | | {report.seconds:.0f} |"
    name = report.model + (" (float32)" if report.dtype == "float32" else "")
    kinds = (report.hidden, report.stream, report.depth, report.trains, report.deep)
    cells = [str(outcome) for outcome in kinds]
    spaces = f"{report.growable}/{report.total}"
    return (
        f"| {name} | {spaces} | {report.noise:.0e} | {' | '.join(cells)} | {report.seconds:.0f} |"
    )


def table(suite: str, reports: list[Report], verbose: bool) -> str:
    """Everything, in Markdown."""
    lines = ["", HEADER]
    for report in reports:
        lines.append(row(report))
        if verbose:
            lines += [f"    {space}: {reason}" for space, reason in report.fixed.items()]
    return "\n".join([*lines, summary(suite, reports)])


def summary(suite: str, reports: list[Report]) -> str:
    good = [r for r in reports if r.ok]
    lines = [f"\n{len(good)} of {len(reports)} grow ({len(good) / len(reports):.0%} of {suite})."]
    deep = [r for r in reports if r.depth.tried and not r.failure]
    lines.append(f"{sum(r.depth.ok for r in deep)} of {len(deep)} with stacks grow deeper exactly.")
    for report in reports:
        if not report.ok:
            lines.append(f"- {report.model}: {report.failure or _why(report)}")
    return "\n".join(lines)


def _why(report: Report) -> str:
    kinds: dict[str, Outcome] = {
        "hidden": report.hidden,
        "streams": report.stream,
        "depth": report.depth,
        "trains wider": report.trains,
        "trains deeper": report.deep,
    }
    return "; ".join(f"{k}: {o}" for k, o in kinds.items() if o.tried and not o.ok)


if __name__ == "__main__":
    main()
