"""Which evaluations of a run were the best, so that their checkpoints stay under readable names.

The ranking is in `Run.memory`, so a resumed run ranks on.
"""

from __future__ import annotations

import re
from math import isfinite

from progtrain.run import Run

_RANKED = "checkpoint/best"  # in `Run.memory`: [name, step, value] of each, the best first
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def ranked(run: Run) -> list[tuple[str, int, float]]:
    """Name, step and value of the best checkpoints, the best first."""
    rows = run.memory.get(_RANKED)
    found: list[tuple[str, int, float]] = []
    for row in rows if isinstance(rows, list) else []:
        match row:
            case [str(name), int(step), float(value)]:
                found.append((name, step, value))
            case _:
                continue
    return found


def rank(run: Run, most: int) -> str | None:
    """Note the evaluation of now where it is among the `most` best; its name, or None.

    Of two that are equal the older one is better.
    """
    value = run.last_metric
    if not most or value is None or not isfinite(value):
        return None
    others = [row for row in ranked(run) if row[1] != run.clock.step]
    name = name_of(run, value, {other for other, *_ in others})
    sign = -1 if run.mode == "max" else 1
    rows = sorted(
        [*others, (name, run.clock.step, float(value))], key=lambda r: (sign * r[2], r[1])
    )
    run.memory[_RANKED] = [list(row) for row in rows[:most]]
    return name if name in {row[0] for row in rows[:most]} else None


def name_of(run: Run, value: float, taken: set[str]) -> str:
    """`epoch=12-val_accuracy=0.974`, and the step where that is another one's name."""
    metric = _UNSAFE.sub("_", run.metric)
    name = f"epoch={run.clock.epoch:.4g}-{metric}={value:.4g}"
    return f"{name}-step={run.clock.step}" if name in taken else name
