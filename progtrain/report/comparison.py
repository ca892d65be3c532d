"""A comparison on the terminal: its arms as a table, what is unfair, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from progtrain.comparison import verdict
from progtrain.comparison.result import Arm, Comparison, Difference, Estimate, Kind, Summary
from progtrain.report import units
from progtrain.report.narrow import fitting, plain_console

# what the table may lose, first to last, on a terminal that is too narrow for it
_EXPENDABLE = (
    "p (Holm)",
    "seconds",
    "params",
    "n",
    "Δ equal steps",
    "fixed S_eq %",
    "FLOPs",
    "kind",
)
_STYLES = {Kind.GROWN: "bold", Kind.BASELINE: "", Kind.FIXED: "dim"}


def print_comparison(
    comparison: Comparison, files: Sequence[Path] = (), console: Console | None = None
) -> None:
    """Print it; `files` are those that hold it, named at the end."""
    console = console or plain_console()
    with console.capture() as capture:
        console.print(Text(f"{comparison.title}  ({_about(comparison)})", style="bold"))
        _print_table(console, [_row(arm, comparison) for arm in comparison.arms], comparison)
        _print_lines(console, comparison, files)
    print(units.encodable(capture.get(), console.encoding), end="", file=console.file, flush=True)


def _about(comparison: Comparison) -> str:
    better = "more" if comparison.mode == "max" else "less"
    return f"{comparison.metric}, {better} is better; margin {comparison.margin:.3g}"


def _row(arm: Arm, comparison: Comparison) -> dict[str, str]:
    """One row, `{column: cell}`."""
    lost = len(arm.runs) - (arm.quality.n if arm.quality else 0)
    return {
        "arm": units.one_line(arm.name),
        "kind": arm.kind.value,
        "n": f"{len(arm.runs) - lost}" + (f" ({lost} lost)" if lost else ""),
        f"{comparison.metric}, mean ± std": _summary(arm.quality),
        "FLOPs": units.flops(arm.flops.mean) if arm.flops else units.MISSING,
        "seconds": units.seconds(arm.seconds.mean) if arm.seconds else units.MISSING,
        "params": units.MISSING if arm.params is None else f"{arm.params:,.0f}",
        "S_eq %": _share(arm.saving),
        "fixed S_eq %": _share(arm.saving_fixed),
        "Δ equal FLOPs": _difference(arm.at_equal_flops),
        "p (Holm)": _p(arm.at_equal_flops),
        "Δ equal steps": _difference(arm.at_equal_steps),
    }


def _print_table(console: Console, rows: Sequence[dict[str, str]], comparison: Comparison) -> None:
    """The rows in as many columns as the console holds."""
    told = [n for n in rows[0] if any(row[n] != units.MISSING for row in rows)]
    columns, narrow = fitting(
        console, told, _EXPENDABLE, lambda kept: _table(rows, kept, comparison)
    )
    console.print(_table(rows, columns, comparison))
    if narrow:
        words = f"Left out for width: {', '.join(narrow)}; the JSON file has all."
        console.print(Text(words, style="dim"))


def _table(rows: Sequence[dict[str, str]], columns: Sequence[str], comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row, arm in zip(rows, comparison.arms, strict=True):
        style = "red" if arm.quality is None else _STYLES[arm.kind]
        table.add_row(*(Text(row[name]) for name in columns), style=style)
    return table


def _print_lines(console: Console, comparison: Comparison, files: Sequence[Path]) -> None:
    wraps = console.is_terminal

    def line(text: str, style: str = "") -> None:
        console.print(Text(units.one_line(text), style=style), soft_wrap=not wraps)

    console.print()
    for arm in comparison.arms:
        if arm.kind is Kind.GROWN:
            line(f"{arm.name}: {arm.verdict}{_not_worse(arm)}")
            if arm.saving is not None and arm.saving_note:
                line(f"  {arm.saving_note}", "dim")
        for run in arm.runs:
            if run.status != "done":
                line(f"{run.folder} {run.status}: {run.error or 'left out.'}", "red")
    for reason in comparison.unfair:
        line(f"unfair ({reason.what}): {reason.text}", "yellow")
    line(comparison.verdict, "bold")
    for told in units.written(files):
        line(told, "dim")


def _not_worse(arm: Arm) -> str:
    if arm.not_worse is None:
        return ""
    return "; at equal steps " + ("not worse, within the margin" if arm.not_worse else
                                  "not shown to be within the margin")  # fmt: skip


def _summary(summary: Summary | None) -> str:
    if summary is None:
        return units.MISSING
    return f"{units.metric(summary.mean)} ± {units.metric(summary.std)}"


def _share(estimate: Estimate | None) -> str:
    if estimate is None:
        return units.MISSING
    return f"{verdict.percent(estimate.value)} {verdict.bracket(estimate)}".strip()


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return units.MISSING
    estimate = difference.estimate
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.4f}"
    return f"{estimate.value:+.4f} [{estimate.low:+.4f}, {estimate.high:+.4f}]"


def _p(difference: Difference | None) -> str:
    known = difference is not None and difference.p_holm is not None
    return f"{difference.p_holm:.2g}" if difference and known else units.MISSING
