"""In which order blocks join a stack: pure functions (length, add) → insertions.

An insertion (at, source) says that a copy of the block at `source` joins at `at`; both count from
the first block of the stack and speak of the stack as the insertions before have left it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Insertion = tuple[int, int]
Order = Callable[[int, int], list[Insertion]]


def together(start: int, sources: Sequence[int]) -> list[Insertion]:
    """New blocks side by side from `start` on, copies of the old blocks `sources`."""
    return [(start + i, j if j < start else j + i) for i, j in enumerate(sources)]


def last(length: int, add: int) -> list[Insertion]:
    """Copies of the last block behind it."""
    return together(length, [length - 1] * add)


def stack(length: int, add: int) -> list[Insertion]:
    """Behind the last block, copies in their order: new layer i is old layer i mod length."""
    return together(length, [i % length for i in range(add)])


def middle(length: int, add: int) -> list[Insertion]:
    """Behind the `add` middle blocks, copies of them in their order; of all where `add` is more.

    Of an even number of blocks the middle one is the one nearer to the input.
    """
    copied = min(add, length)
    first = (length - copied) // 2
    return together(first + copied, [first + i % copied for i in range(add)])


def interleave(length: int, add: int) -> list[Insertion]:
    """New layer i is old layer floor(i · length / (length + add)): copies behind their original."""
    old = [i * length // (length + add) for i in range(length + add)]
    return [(i, i - 1) for i in range(1, len(old)) if old[i] == old[i - 1]]


def placed_first(length: int, add: int) -> list[Insertion]:
    """In front of the first block."""
    return together(0, [i % length for i in range(add)])


def placed_middle(length: int, add: int) -> list[Insertion]:
    """Between the halves; the first one is the larger where they are not equal."""
    return together((length + 1) // 2, [i % length for i in range(add)])


PLACES: dict[str, Order] = {"last": stack, "first": placed_first, "middle": placed_middle}
