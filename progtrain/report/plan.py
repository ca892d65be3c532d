"""`task=plan`: the stages to come, and everything in the network that can grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from progtrain.growth.empty_stacks import first_blocks
from progtrain.growth.grow import Host
from progtrain.growth.spaces import Space, spaces
from progtrain.growth.stacks import BlockStack, stacks
from progtrain.report import words

if TYPE_CHECKING:
    from progtrain.report.reporter import PlannedStage
    from progtrain.run import Run

_WIDE = 120  # columns where the output is no terminal


def print_plan(run: Run, plan: Sequence[PlannedStage], console: Console | None = None) -> None:
    """Print stages, spaces and stacks of the network as it is now."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDE, highlight=False, markup=False)
    x = run.probe.x[:2]
    console.print(_stages(plan))
    console.print(_spaces(spaces(run.model, x)))
    empty = [BlockStack(block.stack, 0, 0) for block in first_blocks(Host.of(run))]
    console.print(_stacks([*stacks(run.model, x), *empty]))


def _stages(plan: Sequence[PlannedStage]) -> Table:
    table = _table("Stages", "stage", "adds", "parameters", "per sample", "memory, at least")
    for (name, what, params, flops), row in zip(words.planned(plan), plan, strict=False):
        table.add_row(name, what, params, flops, f"{row.memory / 2**20:,.1f} MiB")
    return table


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
        numbers = column in ("units", "step", "tensors", "blocks", "first", "memory, at least")
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    return table
