"""Integers that remember where they come from, so that code with sizes in it can be understood.

While a network is traced, the sizes that its code reads (shapes of tensors, whole numbers that
modules hold as attributes) are `Extent`s. They behave as ints. When one arrives in a `view`, it is
known what would have to change for the same code to run after a growth: nothing, where the size
was read off a tensor; an attribute such as `num_heads`; or the code itself, for a literal.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from progtrain.growth.axes import Axes, Axis


@dataclass(frozen=True)
class Attribute:
    """A whole number that a module holds."""

    module: str
    name: str
    index: int  # into a tuple or list; -1: the attribute itself


@dataclass(frozen=True)
class Of:
    """The size of an axis."""

    axis: Axis


@dataclass(frozen=True)
class Operation:
    """Arithmetic on sizes."""

    name: str
    left: Source
    right: Source


Source = int | Attribute | Of | Operation
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
}


class Extent(int):
    """An int with a source."""

    source: Source

    def __new__(cls, value: int, source: Source) -> Extent:
        made = super().__new__(cls, value)
        made.source = source
        return made

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)

    def __reduce__(self) -> Any:
        return int, (int(self),)


def source_of(value: int) -> Source:
    return value.source if isinstance(value, Extent) else int(value)


def _operator(name: str, swapped: bool) -> Any:
    compute = _OPERATIONS[name]

    def apply(self: Extent, other: object) -> Any:
        if type(other) not in (int, Extent):
            return getattr(int, f"__{'r' if swapped else ''}{name}__")(self, other)
        assert isinstance(other, int)
        left, right = (other, self) if swapped else (self, other)
        value = compute(int(left), int(right))
        return Extent(value, Operation(name, source_of(left), source_of(right)))

    return apply


for _name in _OPERATIONS:
    setattr(Extent, f"__{_name}__", _operator(_name, False))
    setattr(Extent, f"__r{_name}__", _operator(_name, True))


def evaluate(
    source: Source, axes: Axes, sizes: Mapping[int, int], held: Mapping[Attribute, int]
) -> int:
    """What the code would compute, with nodes at `sizes` and attributes at `held`."""
    match source:
        case int():
            return source
        case Attribute():
            return held[source]
        case Of(axis):
            return axes.size(axis, sizes)
        case Operation(name, left, right):
            a, b = (evaluate(side, axes, sizes, held) for side in (left, right))
            return _OPERATIONS[name](a, b) if b or name != "floordiv" else 0


def attributes(source: Source) -> list[Attribute]:
    """Attributes that the code reads for it."""
    match source:
        case Attribute():
            return [source]
        case Operation(_, left, right):
            return [*attributes(left), *attributes(right)]
        case _:
            return []


def nodes(source: Source, axes: Axes) -> list[int]:
    """Nodes whose size it depends on."""
    match source:
        case Of(axis):
            return axes.leaves(axis)
        case Operation(_, left, right):
            return [*nodes(left, axes), *nodes(right, axes)]
        case _:
            return []
