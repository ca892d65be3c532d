"""Functions that put together and take apart: cat, stack, split, indexing and the like."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

import torch
from torch import Tensor

from progtrain.growth.axes import Axis, Sum
from progtrain.growth.extents import Extent, nodes, source_of
from progtrain.growth.rules.shapes import sizes_of, unknown
from progtrain.growth.trace import Call, View, fixed


def cat(call: Call) -> None:
    tensors = [t for t in call.get(0, "tensors") if t.numel()]
    dim = call.get(1, "dim", 0) % call.out.ndim
    rows = [call.graph.views(t) for t in tensors]
    views = agreed(call, rows, [d for d in range(call.out.ndim) if d != dim])
    items = [row[dim].axis for row in rows]
    straight = all(row[dim].linear for row in rows)
    views[dim] = View(joined(call, items), straight)
    call.set(views)


def joined(call: Call, items: Sequence[Axis]) -> Axis:
    """Axes one behind another; n times the same one is n × it."""
    resolved = [call.graph.table.resolve(item) for item in items]
    if len(resolved) > 1 and all(item == resolved[0] for item in resolved):
        return (*fixed(len(resolved)), *resolved[0])
    return (Sum(tuple(resolved)),)


def agreed(call: Call, rows: Sequence[Sequence[View]], dims: Sequence[int]) -> list[View]:
    """Dimensions that several tensors share, united where their sizes are equal."""
    views = list(rows[0])
    for row in rows[1:]:
        for dim in dims:
            if call.graph.table.size(views[dim].axis) == call.graph.table.size(row[dim].axis):
                reason = f"{call.name}() puts it beside something of fixed size"
                axis = call.graph.unite(views[dim].axis, row[dim].axis, reason)
                views[dim] = View(axis, views[dim].linear and row[dim].linear)
    return views


def stack(call: Call) -> None:
    rows = [call.graph.views(t) for t in call.get(0, "tensors")]
    views = agreed(call, rows, range(len(rows[0])))
    views.insert(call.get(1, "dim", 0) % call.out.ndim, View(fixed(len(rows))))
    call.set(views)


def split(call: Call) -> None:
    """chunk, split, tensor_split: equal pieces have one size and grow together."""
    dim = call.get(2, "dim", 0) % call.x.ndim
    lengths = [int(piece.shape[dim]) for piece in call.out]
    view, table = call.views[dim], call.graph.table
    given = call.get(1, "split_size_or_sections", call.kwargs.get("split_size"))
    named = isinstance(given, list | tuple) and len(table.resolve(view.axis)) == 1
    if len(set(lengths)) == 1 and not named:
        asked = call.args[1] if len(call.args) > 1 else None
        pieces, piece = table.split(view.axis, [len(lengths), lengths[0]])
        table.fix(pieces, "it is indexed: the pieces of a split")
        axes = [piece] * len(lengths)
        if call.name == "split":
            for size in sizes_of([asked]):
                call.graph.demand(size, piece, "split()")
    else:
        axes, rest = list[Axis](), view.axis
        for length in lengths[:-1]:
            first, rest = table.cut_length(rest, length)
            axes.append(first)
        axes.append(rest)
        for size, axis in zip(given if isinstance(given, list | tuple) else [], axes, strict=False):
            call.graph.demand(size, axis, "split()")
    for piece, axis in zip(call.out, axes, strict=True):
        views = list(call.views)
        views[dim] = View(axis, view.linear)
        call.graph.set(piece, views)


def unbind(call: Call) -> None:
    dim = call.get(1, "dim", 0) % call.x.ndim
    call.graph.fix([call.views[dim]], "it is taken apart by unbind()")
    for piece in call.out:
        call.graph.set(piece, [view for d, view in enumerate(call.views) if d != dim])


def select(call: Call) -> None:
    dim = call.get(1, "dim") % call.x.ndim
    call.graph.fix([call.views[dim]], "one of its entries is selected")
    call.set([view for d, view in enumerate(call.views) if d != dim])


def narrow(call: Call) -> None:
    """Some entries of one dimension: narrow, index_select, gather along it."""
    dim = call.get(1, "dim") % call.x.ndim
    call.graph.fix([call.views[dim]], f"{call.name}() takes some of its entries")
    views = list(call.views)
    views[dim] = View(fixed(int(call.out.shape[dim])))
    call.set(views)


def getitem(call: Call) -> None:
    """Indexing by numbers, slices, None, … and at most one tensor of indices."""
    keys = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    taken = sum(key is not None and key is not Ellipsis for key in keys)
    tensors = [key for key in keys if isinstance(key, Tensor | list)]
    masks = [key for key in tensors if isinstance(key, Tensor) and key.dtype == torch.bool]
    if len(tensors) > 1 or masks or any(isinstance(key, bool) for key in keys):
        unknown(call)
        return
    views, found, at = call.views, list[View](), 0
    for key in keys:
        if key is Ellipsis:
            kept = call.x.ndim - taken
            found += views[at : at + kept]
            at += kept
        elif key is None:
            found.append(View(()))
        else:
            found += _taken(call, views[at], key, int(call.x.shape[at]))
            at += 1
    call.set([*found, *views[at:]])


def _taken(call: Call, view: View, key: Any, size: int) -> list[View]:
    if isinstance(key, slice):
        count = len(range(*key.indices(size)))
        if count == size:
            if key.stop == size:
                call.graph.demand(key.stop, view.axis, "a slice")
            return [view]
        part = _part(call, view, key, count)
        if part is not None:
            return [part]
        if isinstance(key.start, Extent) or isinstance(key.stop, Extent):
            return [view._replace(axis=sliced(call, view.axis, key, size))]
        call.graph.fix([view], "a slice takes some of its entries")
        return [View(fixed(count))]
    call.graph.fix([view], "it is indexed")
    if isinstance(key, Tensor):
        return call.graph.views(key) if key.ndim else []
    return [View(fixed(len(key)))] if isinstance(key, list) else []


def _part(call: Call, view: View, key: slice, count: int) -> View | None:
    """A share of a dimension, such as a third, if the code computes its bounds from the whole."""
    bounds = [b for b in (key.start, key.stop) if b]
    whole = call.graph.table.size(view.axis)
    shared = gcd(whole, *bounds)
    computed = all(b > 0 and _follows(call, b, view) for b in bounds)
    if not computed or key.step not in (None, 1) or shared == 1:
        return None
    outer, inner = call.graph.table.split(view.axis, [whole // shared, shared])
    call.graph.table.fix(outer, "a slice takes some of its entries")
    for bound in bounds:
        call.graph.demand(bound, (*fixed(bound // shared), *inner), "a slice")
    return View((*fixed(count // shared), *inner), view.linear)


def _follows(call: Call, bound: int, view: View) -> bool:
    """Whether the code computes a bound from the size of the dimension itself."""
    table = call.graph.table
    return bool(set(nodes(source_of(bound), table)) & set(table.leaves(view.axis)))


def sliced(call: Call, axis: Axis, key: slice, size: int) -> Axis:
    """The entries between two sizes that the code has read somewhere."""
    start, stop = key.start or 0, size if key.stop is None else key.stop
    if key.step not in (None, 1) or not 0 <= start < stop <= size:
        call.graph.fix([View(axis)], "a slice takes some of its entries")
        return fixed(len(range(*key.indices(size))))
    table, before = call.graph.table, ()
    if start:
        before, axis = table.cut_length(axis, int(start))
        call.graph.demand(start, before, "a slice")
    if stop < size:
        axis = table.cut_length(axis, int(stop - start))[0]
        whole = (Sum((before, axis)),) if before else axis
        call.graph.demand(stop, whole, "a slice")
    return axis
