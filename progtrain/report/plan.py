"""`task=plan` on the screen: stages and what they take, the whole, and everything that can grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from progtrain.growth.empty_stacks import first_blocks
from progtrain.growth.grow import Host
from progtrain.growth.spaces import Space, spaces
from progtrain.growth.stacks import BlockStack, stacks
from progtrain.report import units, words

if TYPE_CHECKING:
    from progtrain.planning.rows import Rehearsal, Row, Span, Totals
    from progtrain.run import Run

_WIDE = 120  # columns where the output is no terminal
_NUMBERS = (
    *("units", "step", "tensors", "blocks", "first", "parameters", "a step", "time a step"),
    *("steps", "FLOPs", "time", "training", "evaluating", "growing", "on disk"),
)


def print_plan(run: Run, rehearsal: Rehearsal, console: Console | None = None) -> None:
    """Print stages, costs, totals, and spaces and stacks of the network as it is now."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDE, highlight=False, markup=False)
    rows = rehearsal.rows
    console.print(_stages(rows))
    console.print(_costs(rows))
    console.print(_memory(rows, rehearsal.rehearsed))
    for line in (*_totals(rehearsal.totals), *_told(rehearsal)):
        console.print(line)
    print_things_that_grow(run, console)


def print_things_that_grow(run: Run, console: Console) -> None:
    """Print spaces and stacks of the network as it is now."""
    x = run.probe.x[:2]
    console.print(_spaces(spaces(run.model, x)))
    empty = [BlockStack(block.stack, 0, 0) for block in first_blocks(Host.of(run))]
    console.print(_stacks([*stacks(run.model, x), *empty]))


def _shortened(rows: Sequence[Row]) -> list[Row | None]:
    """A plan is read, not scrolled: both ends of a long one; None stands for those between."""
    if len(rows) <= words.PLAN_ROWS:
        return list(rows)
    half = words.PLAN_ROWS // 2
    return [*rows[:half], None, *rows[-half:]]


def _stages(rows: Sequence[Row]) -> Table:
    table = _table("Stages", "stage", "begins", "adds", "parameters", "a step")
    for row in _shortened(rows):
        if row is None:
            table.add_row("…", f"{len(rows) - words.PLAN_ROWS} more", "…", "…", "…")
            continue
        table.add_row(
            row.name,
            row.when,
            row.what,
            f"{row.params:,} ({units.ratio(rows[0].params, row.params)})",
            f"{units.flops(row.flops_per_step)}"
            f" ({units.ratio(rows[0].flops_per_step, row.flops_per_step)})",
        )
    return table


def _costs(rows: Sequence[Row]) -> Table:
    title = "Cost of each stage, until the next"
    table = _table(title, "stage", "steps", "FLOPs", "time a step", "time", "growing", "on disk")
    for row in _shortened(rows):
        if row is None:
            table.add_row(*["…"] * 7)
            continue
        table.add_row(
            row.name,
            units.MISSING if row.steps is None else f"{row.steps:,}",
            units.MISSING if row.flops is None else units.flops(row.flops),
            _short(row.step_seconds),
            _time(row.seconds),
            _time(row.growth_seconds),
            size(row.checkpoint),
        )
    return table


def _memory(rows: Sequence[Row], rehearsed: bool) -> Table:
    title = "Peak memory" if rehearsed else "Memory, at least (counted, plan.rehearse=false)"
    table = _table(title, "stage", "training", "evaluating", "growing")
    table.add_column("in a training step")
    for row in _shortened(rows):
        if row is None:
            table.add_row(*["…"] * 5)
            continue
        held = row.held
        kept = f", kept {size(held.kept)}" if held.kept else ""
        table.add_row(
            row.name,
            size(row.step_memory),
            size(row.evaluation_memory),
            size(row.growth_memory),
            f"weights {size(held.weights)}, gradients {size(held.gradients)}, optimizer"
            f" {size(held.optimizer)}{kept}, activations {size(row.activations)}",
        )
    return table


def _totals(totals: Totals) -> Iterator[str]:
    whole = [f"{totals.steps:,} steps"] if totals.steps is not None else []
    whole += [_span(totals.flops, units.flops)] if totals.flops else []
    whole += [_span(totals.seconds, units.seconds)] if totals.seconds else []
    yield "Whole run: " + (", ".join(whole) or "its length cannot be told without real steps")
    if totals.flops and totals.flops.least != totals.flops.most:
        yield "  (from what it comes to if nothing more grows, to all growths at once)"
    if totals.training and totals.evaluating and totals.growing:
        yield (
            f"  of that training {_span(totals.training, units.seconds)}, evaluating"
            f" {_span(totals.evaluating, units.seconds)}, growing"
            f" {_span(totals.growing, units.seconds)}, storing {_time(totals.storing)}"
        )
    free = "" if totals.memory_free is None else f" of {size(totals.memory_free)} free"
    data = f"; the data set takes {size(totals.data)} beside it" if totals.data else ""
    yield f"Memory: at most {size(totals.memory)}{free}{data}"
    yield (
        f"Disk: {totals.checkpoints} checkpoints stay, each at most {size(totals.checkpoint)};"
        f" {size(totals.disk)} needed while one is written, {size(totals.disk_free)} free"
    )


def _told(rehearsal: Rehearsal) -> Iterator[str]:
    from progtrain.planning.rows import INCLUDES

    yield INCLUDES
    for warning in rehearsal.warnings:
        yield f"warning: {warning}"
    yield ""


def _span(span: Span, told: Callable[[float], str]) -> str:
    least, most = told(span.least), told(span.most)
    return least if least == most else f"{least} to {most}"


def _time(number: float | None) -> str:
    return units.MISSING if number is None else units.seconds(number)


def _short(number: float | None) -> str:
    """Seconds of one step."""
    if number is None:
        return units.MISSING
    return f"{number * 1000:,.3g} ms" if number < 1 else units.seconds(number)


def size(number: float | None) -> str:
    """`3.2 MiB`."""
    if number is None:
        return units.MISSING
    for power, unit in ((3, "GiB"), (2, "MiB")):
        if number >= 1024**power:
            return f"{number / 1024**power:,.1f} {unit}"
    return f"{number / 1024:,.1f} KiB"


def _spaces(found: Sequence[Space]) -> Table:
    table = _table("Spaces (widen.spaces)", "name", "units", "step", "tensors", "how it grows")
    for space in found:
        table.add_row(
            space.name,
            f"{space.size:,}",
            "" if space.fixed else f"{space.step:,}",
            f"{len({part.tensor for part in space.parts}):,}",
            how(space),
        )
    return table


def how(space: Space) -> str:
    """Whether and how a space grows, in words."""
    if space.fixed:
        return f"cannot: {space.fixed}"
    told = ["inside another width: name it to grow it"] if space.inner else []
    if space.inexact:
        told.append(f"exact by whole factors (duplicate): {space.inexact}")
    elif space.padding:
        kind = " and ".join(dict.fromkeys(norm.kind.value for norm in space.norms))
        told.append(f"exact by padding ({kind}) or whole factors")
    else:
        told.append("exact by any operator that preserves")
    for first in space.follows[:1]:
        more = f" and {len(space.follows) - 1} more" if len(space.follows) > 1 else ""
        told.append(f"takes along {first}{more}")
    return "; ".join(told)


def _stacks(found: Sequence[BlockStack]) -> Table:
    table = _table("Stacks (deepen.stacks)", "name", "blocks", "first")
    for stack in found:
        table.add_row(stack.name or "(the model)", f"{stack.length}", f"{stack.first}")
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        numbers = column in _NUMBERS
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    return table
