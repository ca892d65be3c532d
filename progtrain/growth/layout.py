"""How the units of a space lie in one dimension of a tensor.

A layout is a row-major product or a sum of runs: `"unit"` stands for the units, a number for so
many fixed entries, `("*", 3, "unit", 64)` for a packed (three, heads, head size) dimension, and
`("+", 16, "unit")` for units that follow 16 channels of something else; `("at", size, places, …)`
names every place of every unit. Layouts are plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

Layout = int | str | tuple[Any, ...]
UNIT = "unit"


def to_json(data: Any) -> Any:
    """Tuples in plain data become lists."""
    if isinstance(data, dict):
        return {key: to_json(value) for key, value in data.items()}
    return [to_json(item) for item in data] if isinstance(data, list | tuple) else data


def from_json(data: Any) -> Any:
    """Lists become tuples."""
    return tuple(from_json(item) for item in data) if isinstance(data, list) else data


def joined(kind: str, items: Sequence[Layout]) -> Layout:
    """A product ("*") or a sum ("+") of layouts, with runs of numbers put together."""
    found: list[Layout] = []
    for item in items:
        last = found[-1] if found else None
        if isinstance(item, int) and isinstance(last, int):
            found[-1] = last + item if kind == "+" else last * item
        elif not (item == 1 and kind == "*"):
            found.append(item)
    if not found:
        return 1
    return found[0] if len(found) == 1 else (kind, *found)


@lru_cache(maxsize=4096)
def positions(layout: Layout, units: int) -> Tensor:
    """Where each unit lives: indices (units, entries a unit) into the dimension."""
    unit_D = _units(layout, units)
    order = torch.argsort(unit_D, stable=True)
    return order[int((unit_D < 0).sum()) :].reshape(units, -1)


@lru_cache(maxsize=4096)
def moved(layout: Layout, old: int, new: int) -> tuple[Tensor, int]:
    """Where every entry of a dimension with `old` units is once there are `new`, and its size."""
    if layout == UNIT:
        return torch.arange(old), new
    if isinstance(layout, int):
        return torch.arange(layout), layout
    places = [moved(item, old, new) for item in layout[1:]]
    index, size = places[0]
    for place, length in places[1:]:
        if layout[0] == "+":
            index, size = torch.cat([index, place + size]), size + length
        else:
            index, size = (index[:, None] * length + place).flatten(), size * length
    return index, size


def _units(layout: Layout, units: int) -> Tensor:
    """The unit that each entry belongs to, −1 for none."""
    if isinstance(layout, int):
        return torch.full((layout,), -1)
    if layout == UNIT:
        return torch.arange(units)
    if layout[0] == "at":
        unit_D = torch.full((int(layout[1]),), -1)
        for unit, places in enumerate(layout[2:]):
            unit_D[torch.tensor(places)] = unit
        return unit_D
    parts = [_units(item, units) for item in layout[1:]]
    if layout[0] == "+":
        return torch.cat(parts)
    unit_D = parts[0]
    for part in parts[1:]:
        unit_D = torch.maximum(unit_D[:, None], part).flatten()
    return unit_D
