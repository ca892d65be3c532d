"""Functions that only move entries: reshape, permute, expand, pad, pool and the like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from progtrain.growth.axes import Axis, Sum
from progtrain.growth.extents import Attribute, Extent, Of
from progtrain.growth.trace import Call, View, fixed, tensors_in


def unknown(call: Call) -> None:
    """The rule of a function that has none: whatever it touches is fixed, and says so."""
    for tensor in tensors_in([*call.args, *call.kwargs.values()]):
        if call.graph.known(tensor):
            call.graph.fix(call.graph.views(tensor), f"{call.name}() reads it and has no rule")
    forget(call)


def forget(call: Call) -> None:
    """Nothing is known of the result."""
    for tensor in tensors_in(call.out):
        call.graph.set(tensor, fixed_like(tensor))


def fixed_like(tensor: Tensor) -> list[View]:
    return [View(fixed(size)) for size in tensor.shape]


def same(call: Call) -> None:
    """The same entries at the same places: a copy, a cast, dropout in evaluation."""
    if isinstance(call.out, Tensor):
        call.set(call.views)


def sizes_of(given: Sequence[Any]) -> list[Any]:
    """Sizes given one by one or as one tuple."""
    return list(given[0]) if given and isinstance(given[0], list | tuple) else list(given)


def reshape(call: Call) -> None:
    given = sizes_of(call.args[1:]) or sizes_of([call.kwargs.get("shape", call.kwargs.get("size"))])
    regroup(call, given)


def reshape_as(call: Call) -> None:
    """reshape_as, view_as: under the shape of another tensor."""
    regroup(call, call.graph.extents(call.get(1, "other")))


def regroup(call: Call, given: Sequence[Any]) -> None:
    """All entries in order, under another shape; `given` is what the code says of it."""
    graph, views = call.graph, call.views
    whole: Axis = tuple(factor for view in views for factor in view.axis)
    wanted = [int(size) for size in call.out.shape]
    axes = graph.table.split(whole, wanted, [label(size) for size in given])
    for size, axis in zip(given, axes, strict=True):
        graph.demand(size, axis, f"{call.name}()")
    straight = {node for view in views if view.linear for node in graph.table.leaves(view.axis)}
    call.set([View(axis, straight.issuperset(graph.table.leaves(axis))) for axis in axes])


def label(size: object) -> str:
    """The name of the attribute that a size is read from."""
    if isinstance(size, Extent) and isinstance(size.source, Attribute):
        return size.source.name
    return ""


def flatten(call: Call) -> None:
    ndim = call.x.ndim
    start, end = call.get(1, "start_dim", 0) % ndim, call.get(2, "end_dim", -1) % ndim
    views = call.views
    merged = views[start : end + 1]
    whole: Axis = tuple(factor for view in merged for factor in view.axis)
    straight = all(view.linear for view in merged if call.graph.table.leaves(view.axis))
    call.set([*views[:start], View(whole, straight), *views[end + 1 :]])


def unflatten(call: Call) -> None:
    dim, sizes = call.get(1, "dim") % call.x.ndim, call.get(2, "unflattened_size")
    shape = [*call.x.shape[:dim], *sizes, *call.x.shape[dim + 1 :]]
    regroup(call, [-1] * dim + list(sizes) + [-1] * (len(shape) - dim - len(sizes)))


def permute(call: Call) -> None:
    dims = sizes_of(call.args[1:]) or list(call.kwargs["dims"])
    call.set([call.views[d] for d in dims])


def transpose(call: Call) -> None:
    views = list(call.views)
    a, b = call.get(1, "dim0"), call.get(2, "dim1")
    views[a], views[b] = views[b], views[a]
    call.set(views)


def reverse(call: Call) -> None:
    """x.T, x.mT."""
    views = list(call.views)
    call.set([*views[:-2], views[-1], views[-2]] if call.name in ("mT", "mH") else views[::-1])


def movedim(call: Call) -> None:
    source, target = (
        [d % call.x.ndim for d in (at if isinstance(at, list | tuple) else [at])]
        for at in (call.get(1, "source"), call.get(2, "destination"))
    )
    order: list[int] = [d for d in range(call.x.ndim) if d not in source]
    for place, dim in sorted(zip(target, source, strict=True)):
        order.insert(place, dim)
    call.set([call.views[d] for d in order])


def squeeze(call: Call) -> None:
    dims = call.get(1, "dim")
    dims = range(call.x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % call.x.ndim for d in dims if call.x.shape[d] == 1}
    call.set([view for d, view in enumerate(call.views) if d not in gone])


def unsqueeze(call: Call) -> None:
    views = list(call.views)
    views.insert(call.get(1, "dim") % call.out.ndim, View(()))
    call.set(views)


def expand(call: Call) -> None:
    """Dimensions of size 1 are repeated; new ones join in front."""
    like = call.name == "expand_as"
    given = [-1] * call.out.ndim if like else sizes_of(call.args[1:])
    views = [View(())] * (call.out.ndim - call.x.ndim) + call.views
    result: list[View] = []
    for view, size, asked in zip(views, call.out.shape, given, strict=True):
        if size == call.graph.table.size(view.axis):
            call.graph.demand(asked, view.axis, "expand()")
            result.append(view)
        else:
            result.append(View(sized(call, asked, int(size))))
    call.set(result)


def sized(call: Call, asked: object, size: int) -> Axis:
    """An axis of a size that the code asks for: that of what it was read from."""
    if isinstance(asked, Extent) and isinstance(asked.source, Of):
        return asked.source.axis
    axis = fixed(size)
    call.graph.demand(asked, axis, f"{call.name}()")
    return axis


def repeat(call: Call) -> None:
    times = sizes_of(call.args[1:]) or sizes_of([call.get(1, "dims", call.kwargs.get("repeats"))])
    times = [1] * (call.x.ndim - len(times)) + times  # tile() may leave out those in front
    views = [View(())] * (len(times) - call.x.ndim) + call.views
    call.set(
        view if n == 1 else View((*fixed(int(n)), *view.axis), view.linear)
        for view, n in zip(views, times, strict=True)
    )


def repeat_interleave(call: Call) -> None:
    times, dim = call.get(1, "repeats"), call.get(2, "dim")
    if not isinstance(times, int) or dim is None:
        unknown(call)
        return
    views = list(call.views)
    view = views[dim]
    views[dim] = View((*view.axis, *fixed(int(times))), view.linear)
    call.set(views)


def pad(call: Call) -> None:
    """Padded dimensions lose what is known; the others stay."""
    given = list(call.get(1, "pad"))
    views = list(call.views)
    for back in range(len(given) // 2):
        before, after = int(given[2 * back]), int(given[2 * back + 1])
        if before or after:
            view = views[-1 - back]
            items = [fixed(before), view.axis, fixed(after)]
            items = [item for item, n in zip(items, (before, 1, after), strict=True) if n]
            padded = items[0] if len(items) == 1 else (Sum(tuple(items)),)
            growing = call.graph.table.leaves(view.axis)
            views[-1 - back] = View(
                padded
                if growing and min(before, after) >= 0
                else fixed(int(call.out.shape[-1 - back]))
            )
    call.set(views)


def pool(call: Call) -> None:
    """Pooling, interpolation, im2col: channels stay, positions are the input's affair."""
    out = call.out[0] if isinstance(call.out, tuple) else call.out
    lead = out.ndim - (1 if "1d" in call.name else 3 if "3d" in call.name else 2)
    if call.name == "interpolate":
        lead = 2
    views = [view._replace(linear=False) for view in call.views[:lead]]
    views += [View(fixed(int(size))) for size in out.shape[lead:]]
    for tensor in tensors_in(call.out):
        call.graph.set(tensor, views)


def windows(call: Call) -> None:
    """F.unfold: (batch, channels × window, positions)."""
    batch, channels = call.views[:2]
    window = int(call.out.shape[1]) // int(call.x.shape[1])
    call.set(
        [batch, View((*channels.axis, *fixed(window)), channels.linear), *fixed_like(call.out)[2:]]
    )


def sliding(call: Call) -> None:
    """Tensor.unfold: one dimension becomes positions, the window joins at the end."""
    dim = call.args[1] % call.x.ndim
    call.graph.fix([call.views[dim]], "a window slides over it")
    views = [*call.views, View(fixed(int(call.out.shape[-1])))]
    views[dim] = View(fixed(int(call.out.shape[dim])))
    call.set(views)


def pixel_shuffle(call: Call) -> None:
    """(channels × r², h, w) → (channels, h r, w r)."""
    times = int(call.x.shape[1]) // int(call.out.shape[1])
    kept = call.graph.table.split(call.views[1].axis, [int(call.out.shape[1]), times])[0]
    call.set([call.views[0], View(kept), *fixed_like(call.out)[2:]])


def pixel_unshuffle(call: Call) -> None:
    times = int(call.out.shape[1]) // int(call.x.shape[1])
    axis = (*call.views[1].axis, *fixed(times))
    call.set([call.views[0], View(axis), *fixed_like(call.out)[2:]])


def roll(call: Call) -> None:
    """Entries move along a dimension: harmless where it is positions."""
    dims = call.get(2, "dims") if call.name == "roll" else call.get(1, "dims")
    for dim in [dims] if isinstance(dims, int) else dims or range(call.x.ndim):
        call.graph.fix([call.views[dim]], f"{call.name}() moves its entries")
    call.set(call.views)


def created(call: Call) -> None:
    """zeros, ones, empty, rand and their new_ forms: sizes that the code read somewhere."""
    given = call.args[1:] if call.name.startswith("new_") else call.args
    given = sizes_of(given) or sizes_of([call.kwargs.get("size", ())])
    if [int(size) for size in given if isinstance(size, int)] != list(call.out.shape):
        forget(call)
        return
    call.set([View(sized(call, g, int(s))) for g, s in zip(given, call.out.shape, strict=True)])


def written(call: Call) -> None:
    """x[...] = value: nothing new where neither grows."""
    value = call.args[2]
    for tensor in tensors_in([value]):
        call.graph.fix(call.graph.views(tensor), "it is written into another tensor")
