"""A comparison as one HTML file that opens from a disk without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from progtrain.comparison.result import Comparison, Difference, Estimate, Summary
from progtrain.page import curves
from progtrain.page.arms import Look, certainty, interval, looks, summary
from progtrain.page.document import Figure, document, figure
from progtrain.report import units


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it shows, what it is sorted by, a smaller line below."""

    text: str
    value: float | str | None = None
    small: str = ""


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
    shown: dict[str, list[Figure]] = {"curves": _curves(comparison, dressed)}
    content = document(
        "comparison.html",
        comparison=comparison,
        looks=dressed,
        columns=_columns(comparison),
        entries=[_entry(look) for look in dressed],
        figures=shown,
        facts=_facts(comparison),
        failed=[(arm, run) for arm in comparison.arms for run in arm.runs if run.status != "done"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def _curves(comparison: Comparison, dressed: Sequence[Look]) -> list[Figure]:
    return [figure(chart) for chart in curves.charts(comparison, dressed)]


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The figures above everything, `(number, what it is)`."""
    runs = [run for arm in comparison.arms for run in arm.runs]
    done = sum(run.status == "done" for run in runs)
    seeds = len({run.seed for run in runs if run.seed is not None})
    better = "more is better" if comparison.mode == "max" else "less is better"
    return [
        (comparison.metric, better),
        (f"{len(comparison.arms)}", "arms" if len(comparison.arms) != 1 else "arm"),
        (f"{done} of {len(runs)}", "runs came to their end"),
        (f"{seeds}", "seeds" if seeds != 1 else "seed"),
        (f"±{units.metric(comparison.margin)}", "counts as equal"),
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
    done = sum(run.status == "done" for run in arm.runs)
    cells = (
        Cell(f"{done}/{len(arm.runs)}", done),
        Cell(summary(arm.quality), arm.quality.mean if arm.quality else None),
        _saving(arm.saving, arm.saving_note),
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
    told = [certainty(difference), f"against {difference.against}" if difference.against else ""]
    if not_worse is not None:
        told.insert(0, "not worse within the margin" if not_worse else "may be worse")
    small = "; ".join(text for text in told if text)
    return Cell(interval(difference.estimate), difference.estimate.value, small)


def _cost(cost: Summary | None, text: str) -> Cell:
    return Cell(text or units.MISSING, cost.mean if cost else None)
