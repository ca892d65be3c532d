"""What all deepening operators share: which stacks grow, and where the blocks go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from progtrain.errors import GrowthError, NothingToGrowError, did_you_mean, require
from progtrain.growth.edits import Edit
from progtrain.growth.empty_stacks import first_blocks
from progtrain.growth.first_block import FirstBlock
from progtrain.growth.grow import Grown, Host
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.newborn import calibrate
from progtrain.growth.operators.orders import PLACES, Insertion, Order
from progtrain.growth.stacks import BlockStack, stacks
from progtrain.growth.tensors import matching


def check_deepen(add: int, place: str = "last") -> None:
    require(1 <= add <= 10_000, "add", add, "a whole number, 1 to 10000")
    require(place in PLACES, "place", place, "one of " + ", ".join(PLACES))


def copied(host: Host, pattern: str, add: int, order: Order) -> Edit:
    """`add` copies of old blocks join every stack that matches, in that order."""
    found = stacks(host.model, host.probe.x)
    names = matching([stack.name for stack in found], pattern)
    if names:
        return _inserted([stack for stack in found if stack.name in names], add, order)
    empty = matching([block.stack for block in first_blocks(host)], pattern)
    if empty:
        raise GrowthError(
            f"Copying needs a block, and {', '.join(map(_told, empty))} has none. Take"
            " deepen=random (or deepen=identity) for the first one, or a growth.start.depth of at"
            " least 1."
        )
    raise _no_match(host, pattern, [stack.name for stack in found])


def placed(host: Host, pattern: str, add: int, place: str) -> Edit:
    """`add` blocks of the same shape join every stack that matches, empty ones included."""
    found, firsts = stacks(host.model, host.probe.x), first_blocks(host)
    known = [stack.name for stack in found] + [block.stack for block in firsts]
    names = matching(known, pattern)
    if not names:
        raise _no_match(host, pattern, known)
    old = _inserted([stack for stack in found if stack.name in names], add, PLACES[place])
    new = [block for block in firsts if block.stack in names]
    return Edit((*old.changes, *(change for block in new for change in _begun(block, add))))


@dataclass(frozen=True)
class Copies(ABC):
    """Deepening by copies: `add` in every stack that matches `stacks`, in an order of its own."""

    stacks: str = "*"
    add: int = 1
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_deepen(self.add)

    @abstractmethod
    def order(self, length: int, add: int) -> list[Insertion]:
        """Where copies of which of `length` blocks join."""
        ...

    def propose(self, host: Host) -> Edit:
        return copied(host, self.stacks, self.add, self.order)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        """The edit has copied the weights; only the statistics see another input now."""
        calibrate(grown.model, (), grown.edit.blocks(), grown.x)

    def flops(self, grown: Grown) -> float:
        return 0.0


def _inserted(chosen: Sequence[BlockStack], add: int, order: Order) -> Edit:
    return Edit(
        tuple(
            InsertBlock(stack.name, stack.first + at, stack.first + source)
            for stack in chosen
            for at, source in order(stack.length, add)
        )
    )


def _begun(block: FirstBlock, add: int) -> list[FirstBlock | InsertBlock]:
    """The first block of an empty stack, and the others behind it."""
    return [block, *(InsertBlock(block.stack, at, 0) for at in range(1, add))]


def _no_match(host: Host, pattern: str, known: Sequence[str]) -> GrowthError:
    kind = type(host.model).__name__
    if not known:
        return NothingToGrowError(
            f"deepen does not support this {kind}: it has no run of equal blocks that keep their"
            " input's shape, and none that could begin (growth.start.depth). Grow it by widen"
            " instead."
        )
    return GrowthError(
        f"deepen.stacks={pattern} matches no stack of the {kind}."
        f"{did_you_mean(pattern, known)} Stacks: {', '.join(map(_told, known))}."
    )


def _told(stack: str) -> str:
    return stack or "the model"
