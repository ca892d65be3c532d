"""Tables that lose columns, not letters, on a terminal that is too narrow for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_WIDE = 100_000  # no terminal: as wide as the table needs


def plain_console() -> Console:
    """Nothing is marked up, and only a terminal has a width."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, highlight=False, markup=False, emoji=False)


def fitting(
    console: Console,
    columns: Sequence[str],
    expendable: Sequence[str],
    table: Callable[[Sequence[str]], Table],
) -> tuple[list[str], list[str]]:
    """The columns that the console holds, and those of `expendable` that went, first to last."""
    kept, left_out = list(columns), list[str]()
    unbounded = console.options.update(max_width=_WIDE)
    for name in expendable:
        if Measurement.get(console, unbounded, table(kept)).maximum <= console.width:
            break
        if name in kept:
            kept.remove(name)
            left_out.append(name)
    return kept, left_out
