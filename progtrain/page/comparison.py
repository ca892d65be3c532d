"""A comparison as one HTML file that opens from a disk without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from progtrain.comparison.result import Comparison, Difference, Estimate, RunOf, Summary
from progtrain.page import curves, forest, frontier
from progtrain.page.arms import Look, certainty, interval, looks, summary
from progtrain.page.document import document, figure, heat_figure
from progtrain.page.files import write_plots
from progtrain.page.heat import heat
from progtrain.page.method import sentences
from progtrain.report import units
from progtrain.report.outcomes import DONE


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it shows, what it is sorted by, a smaller line below."""

    text: str
    value: float | str | None = None
    small: str = ""
    title: str = ""  # under the pointer


@dataclass(frozen=True)
class Entry:
    """One arm in the table."""

    look: Look
    cells: tuple[Cell, ...]


def write(comparison: Comparison, path: Path) -> None:
    """Write the page to `path` and its plots into `<stem>_plots` beside it.

    Raises `OSError` where a file cannot be written.
    """
    dressed = looks(comparison)
    learning = curves.charts(comparison, dressed)
    compute = frontier.chart(comparison, dressed)
    forests = forest.charts(comparison, dressed)
    grid = heat(comparison, dressed)
    content = document(
        "comparison.html",
        comparison=comparison,
        looks=dressed,
        columns=_columns(comparison),
        entries=[_entry(look) for look in dressed],
        learning=[figure(chart) for chart in learning if not chart.empty],
        frontier=None if compute.empty else figure(compute),
        forests=[figure(chart) for _, chart in forests],
        forest_names=[name for name, _ in forests],
        heat=None if grid is None else heat_figure(grid),
        facts=_facts(comparison),
        method=list(sentences(comparison)),
        failed=[(arm, run) for arm in comparison.arms for run in arm.runs if run.status != DONE],
        runs=[(arm, run, _told(run)) for arm in comparison.arms for run in arm.runs],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    drawn = [*learning, compute, *(chart for _, chart in forests)]
    write_plots([chart for chart in drawn if not chart.empty], grid, _plots(path))


def _plots(path: Path) -> Path:
    return path.with_name(f"{path.stem}_plots")


def _told(run: RunOf) -> tuple[str, str, str]:
    """Quality, FLOPs and seconds of a run."""
    return (
        units.metric(run.quality),
        units.MISSING if run.flops is None else units.flops(run.flops),
        units.MISSING if run.seconds is None else units.seconds(run.seconds),
    )


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The figures above everything, `(number, what it is)`."""
    runs = [run for arm in comparison.arms for run in arm.runs]
    done = sum(run.status == DONE for run in runs)
    seeds = len({run.seed for run in runs if run.seed is not None})
    better = "more is better" if comparison.mode == "max" else "less is better"
    return [
        (comparison.metric, better),
        (f"{len(comparison.arms)}", "arms" if len(comparison.arms) != 1 else "arm"),
        (f"{done} of {len(runs)}", "runs came to their end"),
        (f"{seeds}", "seeds" if seeds != 1 else "seed"),
        (units.metric(comparison.margin), "margin of “not worse”"),
    ]


def _columns(comparison: Comparison) -> list[tuple[str, str]]:
    """Heads of the table and what they mean."""
    share = f"{comparison.confidence:.0%} interval in brackets"
    return [
        ("Arm", "Its verdict is the line below its name."),
        ("n", "runs that came to their end, of all"),
        (comparison.metric, "mean ± standard deviation over seeds, as reported at the end"),
        ("Compute saved", f"S_eq against baselines of its own final size; {share}"),
        ("… vs best fixed", f"S_eq against the best of all fixed sizes; {share}"),
        ("Δ equal FLOPs", f"this arm minus what it is compared with; {share}"),
        ("Δ equal seconds", f"this arm minus what it is compared with; {share}"),
        ("Δ equal steps", f"this arm minus what it is compared with; {share}"),
        ("Params", "at the end"),
        ("FLOPs", "of the whole run: growths, trials, teachers and monitors included"),
        ("Time", "of the whole run"),
        ("Steps", "of the optimizer"),
        ("Peak memory", "MiB"),
    ]


def _entry(look: Look) -> Entry:
    arm = look.arm
    done = sum(run.status == DONE for run in arm.runs)
    cells = (
        Cell(f"{done}/{len(arm.runs)}", done),
        Cell(summary(arm.quality), arm.quality.mean if arm.quality else None),
        _saving(arm.saving, "" if arm.saving_note in arm.verdict else arm.saving_note),
        _saving(arm.saving_fixed, ""),
        _difference(arm.at_equal_flops),
        _difference(arm.at_equal_seconds),
        _difference(arm.at_equal_steps, arm.not_worse),
        Cell(units.MISSING if arm.params is None else f"{arm.params:,.0f}", arm.params),
        _cost(arm.flops, units.flops(arm.flops.mean) if arm.flops else ""),
        _cost(arm.seconds, units.seconds(arm.seconds.mean) if arm.seconds else ""),
        _cost(arm.steps, f"{arm.steps.mean:,.0f}" if arm.steps else ""),
        Cell(units.MISSING if arm.peak_mib is None else f"{arm.peak_mib:,.0f}", arm.peak_mib),
    )
    return Entry(look, cells)


def _saving(estimate: Estimate | None, note: str) -> Cell:
    value = estimate.value if estimate else None
    return Cell(interval(estimate, share=True), value, note)


def _difference(difference: Difference | None, not_worse: bool | None = None) -> Cell:
    if difference is None:
        return Cell(units.MISSING)
    told = [] if not_worse is None else ["not worse" if not_worse else "may be worse"]
    small = "; ".join(text for text in (*told, certainty(difference)) if text)
    against = f"against {difference.against}" if difference.against else ""
    return Cell(interval(difference.estimate), difference.estimate.value, small, against)


def _cost(cost: Summary | None, text: str) -> Cell:
    return Cell(text or units.MISSING, cost.mean if cost else None)
