"""The algebra of dimensions: every dimension is a product of factors, like an einops pattern.

A factor is a leaf (a size that may grow), a fixed size, or a sum (what `cat` makes). Where a model
reshapes, a leaf turns out to be a product itself: (three heads head_size), (groups channels); it is
then refined. Where two dimensions must agree, their factors are united. What is left unrefined at
the end are the spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from progtrain.growth.layout import UNIT, Layout, joined


@dataclass(frozen=True)
class Leaf:
    """A size that may grow: a node of the table."""

    node: int


@dataclass(frozen=True)
class Fixed:
    """A size that growth does not change: batch, positions, image."""

    size: int


@dataclass(frozen=True)
class Sum:
    """Axes one behind another."""

    items: tuple[Axis, ...]


Factor = Leaf | Fixed | Sum
Axis = tuple[Factor, ...]  # row-major product; empty: size 1


@dataclass
class Node:
    """A leaf's entry in the table."""

    size: int
    label: str = ""  # how the code calls it, where it says so: num_heads
    fixed: str = ""  # why it cannot grow
    inner: bool = False  # the later factor of a split: head size, channels of a group
    same: int | None = None  # united with that node
    into: Axis | None = None  # refined


class Axes:
    """The table of leaves."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def new(self, size: int, label: str = "", fixed: str = "", inner: bool = False) -> Axis:
        self.nodes.append(Node(size, label, fixed, inner))
        return (Leaf(len(self.nodes) - 1),)

    def resolve(self, axis: Axis) -> Axis:
        """The axis in terms of leaves that are neither united nor refined; fixed sizes side by
        side are one."""
        found: list[Factor] = []
        for factor in (factor for item in axis for factor in self._resolved(item)):
            if found and isinstance(factor, Fixed) and isinstance(before := found[-1], Fixed):
                found[-1] = Fixed(before.size * factor.size)
            else:
                found.append(factor)
        return tuple(found)

    def _resolved(self, factor: Factor) -> Iterator[Factor]:
        match factor:
            case Leaf(index):
                node = self.nodes[index]
                if node.same is not None:
                    yield from self._resolved(Leaf(node.same))
                elif node.into is not None:
                    yield from self.resolve(node.into)
                else:
                    yield factor
            case Sum(items):
                yield Sum(tuple(self.resolve(item) for item in items))
            case Fixed(size):
                if size != 1:
                    yield factor

    def leaves(self, axis: Axis) -> list[int]:
        """Nodes in a resolved or unresolved axis, outermost first."""
        found: list[int] = []
        for factor in self.resolve(axis):
            if isinstance(factor, Leaf):
                found.append(factor.node)
            elif isinstance(factor, Sum):
                found += [node for item in factor.items for node in self.leaves(item)]
        return list(dict.fromkeys(found))

    def size(self, axis: Axis, sizes: Mapping[int, int] | None = None) -> int:
        """Entries along the axis, with some nodes at other sizes."""
        total = 1
        for factor in self.resolve(axis):
            match factor:
                case Leaf(node):
                    total *= (sizes or {}).get(node, self.nodes[node].size)
                case Fixed(size):
                    total *= size
                case Sum(items):
                    total *= sum(self.size(item, sizes) for item in items)
        return total

    def fix(self, axis: Axis, reason: str) -> None:
        for node in self.leaves(axis):
            self.nodes[node].fixed = self.nodes[node].fixed or reason

    def split(self, axis: Axis, sizes: Sequence[int], labels: Sequence[str] = ()) -> list[Axis]:
        """The axis as a product of axes of these sizes; fixed where it does not divide so.

        A labelled size is a count that the code names (heads), and is a leaf even if it is 1.
        """
        rest, found = self.resolve(axis), list[Axis]()
        for at, size in enumerate(sizes):
            label = labels[at] if labels else ""
            cut = self._take(self.resolve(rest), size, label)
            if cut is None:
                self.fix(axis, f"{self.size(axis)} entries are regrouped as {list(sizes)}")
                return [(Fixed(s),) for s in sizes]
            found.append(cut[0])
            rest = cut[1]
        return found

    def _take(self, axis: Axis, size: int, label: str) -> tuple[Axis, Axis] | None:
        """The leading `size` entries of a product, and the rest; None if it does not divide so."""
        if size == 1:
            named = bool(label and axis and isinstance(axis[0], Leaf))
            cut = self._cut(axis[0], 1) if named else None
            first, rest = (cut[0], (*cut[1], *axis[1:])) if cut else ((), axis)
            self._call(first, label)
            return first, rest
        taken: Axis = ()
        while self.size(taken) < size:
            if not axis:
                return None
            missing, head = size // self.size(taken), self.size(axis[:1])
            if missing % head:
                cut = None if head % missing else self._cut(axis[0], missing)
                if cut is None:
                    return None
                taken, axis = (*taken, *cut[0]), (*cut[1], *axis[1:])
                continue
            taken, axis = (*taken, axis[0]), axis[1:]
        if self.size(taken) != size:
            return None
        taken = self.resolve(taken)
        self._call(taken, label)
        return taken, axis

    def _call(self, axis: Axis, label: str) -> None:
        """A leaf is called what the code calls its size."""
        if len(axis) == 1 and isinstance(axis[0], Leaf):
            node = self.nodes[axis[0].node]
            node.label = node.label or label

    def _cut(self, factor: Factor, size: int) -> tuple[Axis, Axis] | None:
        """A factor as size × rest; a leaf is refined for good."""
        rest = self.size((factor,)) // size
        match factor:
            case Fixed():
                return (Fixed(size),), (Fixed(rest),)
            case Leaf(index):
                node = self.nodes[index]
                first = self.new(size, "", node.fixed, node.inner)
                node.into = (*first, *self.new(rest, "", node.fixed, True))
                return node.into[:1], node.into[1:]
            case Sum(items):
                return self._cut_sum(items, rest)

    def _cut_sum(self, items: tuple[Axis, ...], inner: int) -> tuple[Axis, Axis] | None:
        """(a + b) as (a' + b') × inner, where every item is a multiple of `inner`."""
        if any(self.size(item) % inner for item in items):
            return None
        pairs = [self.split(item, [self.size(item) // inner, inner]) for item in items]
        for (_, a), (_, b) in pairwise(pairs):
            self.unite(a, b, "parts of different layout are regrouped together")
        return (Sum(tuple(outer for outer, _ in pairs)),), pairs[0][1]

    def unite(self, a: Axis, b: Axis, reason: str) -> Axis:
        """Two axes that must have one size; `reason` where one of them cannot grow."""
        whole = a
        if self.size(a) != self.size(b):
            self.fix((*a, *b), reason)
            return whole
        while True:
            a, b = self.resolve(a), self.resolve(b)
            if not a or not b:
                self.fix((*a, *b), reason)  # only leaves of size 1 can be left
                return self.resolve(whole)
            first, second = self.size(a[:1]), self.size(b[:1])
            if first == second:
                self._unite(a[0], b[0], reason)
                a, b = a[1:], b[1:]
                continue
            if 1 in (first, second):  # a leaf of size 1 has no counterpart
                self.fix(a[:1] if first == 1 else b[:1], reason)
                a, b = (a[1:], b) if first == 1 else (a, b[1:])
                continue
            longer, shorter = (a, b) if first > second else (b, a)
            size = self.size(shorter[:1])
            cut = self._cut(longer[0], size) if self.size(longer[:1]) % size == 0 else None
            if cut is None:
                self.fix((*a, *b), "it appears in two layouts that do not match")
                return self.resolve(whole)
            self._unite(self.resolve(cut[0])[0], shorter[0], reason)
            a, b = (*cut[1], *longer[1:]), shorter[1:]

    def _unite(self, a: Factor, b: Factor, reason: str) -> None:
        match a, b:
            case Leaf(first), Leaf(second):
                self._merge(*sorted((first, second)))
            case Leaf(index), Sum() | Fixed():
                self._become(index, b, reason)
            case Sum() | Fixed(), Leaf(index):
                self._become(index, a, reason)
            case Sum(first), Sum(second):
                self._unite_sums(list(first), list(second), reason)
            case _:
                self.fix((a, b), reason)

    def _merge(self, keep: int, drop: int) -> None:
        if keep == drop:
            return
        kept, dropped = self.nodes[keep], self.nodes[drop]
        dropped.same = keep
        kept.fixed = kept.fixed or dropped.fixed
        kept.label = kept.label or dropped.label
        kept.inner = kept.inner or dropped.inner

    def _become(self, index: int, factor: Sum | Fixed, reason: str) -> None:
        node = self.nodes[index]
        if isinstance(factor, Fixed) or index in self.leaves((factor,)):
            node.fixed = node.fixed or reason
            return
        if node.fixed:
            self.fix((factor,), node.fixed)
        node.into = (factor,)

    def _unite_sums(self, a: list[Axis], b: list[Axis], reason: str) -> None:
        while a and b:
            first, second = self.size(a[0]), self.size(b[0])
            if first == second:
                self.unite(a.pop(0), b.pop(0), reason)
            else:
                longer, size = (a, second) if first > second else (b, first)
                longer[:1] = self.cut_length(longer[0], size)

    def cut_length(self, axis: Axis, size: int) -> list[Axis]:
        """The first `size` entries and those behind them."""
        axis, whole = self.resolve(axis), self.size(axis)
        if len(axis) == 1 and isinstance(axis[0], Leaf):
            node = self.nodes[axis[0].node]
            parts = [self.new(s, "", node.fixed, node.inner) for s in (size, whole - size)]
            node.into = (Sum(tuple(parts)),)
            return parts
        if len(axis) == 1 and isinstance(axis[0], Sum):
            return self._cut_items(list(axis[0].items), size)
        self.fix(axis, f"its {whole} entries are divided at {size}")
        return [(Fixed(size),), (Fixed(whole - size),)]

    def _cut_items(self, items: list[Axis], size: int) -> list[Axis]:
        taken: list[Axis] = []
        while (missing := size - sum(self.size(item) for item in taken)) > 0:
            if self.size(items[0]) > missing:
                items[:1] = self.cut_length(items[0], missing)
            taken.append(items.pop(0))
        return [_sum(taken), _sum(items)]

    def layout(self, axis: Axis, node: int, sizes: Mapping[int, int]) -> Layout:
        """Where the units of `node` lie, with other nodes at `sizes`; a number if nowhere."""
        whole: list[Layout] = []
        for factor in self.resolve(axis):
            if factor == Leaf(node):
                whole.append(UNIT)
            elif isinstance(factor, Sum):
                whole.append(joined("+", [self.layout(i, node, sizes) for i in factor.items]))
            else:
                whole.append(self.size((factor,), sizes))
        return joined("*", whole)


def _sum(items: Sequence[Axis]) -> Axis:
    return items[0] if len(items) == 1 else (Sum(tuple(items)),)
