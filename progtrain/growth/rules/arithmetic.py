"""Arithmetic: elementwise functions, broadcasting, reductions, products of activations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from progtrain.growth.axes import Axis
from progtrain.growth.rules.shapes import fixed_like, unknown
from progtrain.growth.trace import Call, NormUse, View, fixed, tensors_in
from progtrain.growth.widen_space import Norm, Role


def elementwise(call: Call) -> None:
    """Any function of one tensor that acts on every entry alone."""
    call.set([view._replace(linear=False) for view in call.views])


def along(call: Call) -> None:
    """Softmax, cumulative sums and the like mix the entries of one dimension."""
    dim = call.get(1, "dim", -1)
    if isinstance(dim, int):
        call.graph.fix([call.views[dim]], f"{call.name}() mixes its entries")
        elementwise(call)
    else:
        unknown(call)


def normalise(call: Call) -> None:
    """F.normalize: divided by a norm over one dimension."""
    call.graph.fix([call.views[call.get(2, "dim", 1)]], "it is normalised to length 1")
    elementwise(call)


def add(call: Call) -> None:
    call.set(_broadcast(call, Role.PRODUCER))


def multiply(call: Call) -> None:
    call.set(_broadcast(call, Role.GAIN))


def compare(call: Call) -> None:
    """Where, comparisons, maximum: every entry of the broadcast operands alone."""
    call.set([view._replace(linear=False) for view in _broadcast(call, Role.PRODUCER)])


def _broadcast(call: Call, role: Role) -> list[View]:
    operands = [t for t in call.args if isinstance(t, Tensor)]
    operands += [t for t in call.kwargs.values() if isinstance(t, Tensor) and t is not call.out]
    constant = len(operands) == 1 and role is Role.PRODUCER
    views = broadcast(call, operands, role)
    for dim, view in enumerate(views):
        meeting = sum(
            t.ndim >= len(views) - dim and t.shape[dim - len(views)] > 1 for t in operands
        )
        straight = view.linear and not constant and (role is Role.PRODUCER or meeting < 2)
        views[dim] = view._replace(linear=straight)
    return views


def broadcast(call: Call, operands: Sequence[Tensor], role: Role) -> list[View]:
    """Dimensions of the result; equal ones are united, repeated ones take the longer."""
    graph, out = call.graph, call.out
    views = [View(())] * out.ndim
    begun = [False] * out.ndim
    for tensor in operands:
        own, name = graph.views(tensor), graph.name(tensor)
        for back in range(1, tensor.ndim + 1):
            view, size = own[-back], int(out.shape[-back])
            repeated = tensor.shape[-back] == 1 and (size > 1 or not graph.table.leaves(view.axis))
            if repeated and (begun[-back] or size > 1):
                continue
            if name in graph.parameters:
                graph.axis(tensor, tensor.ndim - back, role)
            if begun[-back]:
                reason = f"{call.name}() joins it to something of fixed size"
                axis = graph.unite(views[-back].axis, view.axis, reason)
                view = View(axis, views[-back].linear and view.linear)
            views[-back], begun[-back] = view, True
    return views


def reduce(call: Call) -> None:
    """Mean, sum, maximum or a norm over some dimensions."""
    named = call.name in ("linalg_vector_norm", "norm", "linalg_norm")
    dims = call.get(2 if named else 1, "dim")
    dims = range(call.x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % call.x.ndim for d in dims}
    for d in gone:
        view = call.views[d]
        if call.name in ("mean", "var", "std", "var_mean", "std_mean"):
            call.graph.norms.append(NormUse(view.axis, Norm.MEAN, "", None, False))
        else:
            call.graph.fix([view], f"{call.name}() is taken over it")
    keep = call.get(3 if named else 2, "keepdim", False)
    straight = call.name in ("mean", "sum")
    views = [
        View(()) if d in gone else view._replace(linear=view.linear and straight)
        for d, view in enumerate(call.views)
        if keep or d not in gone
    ]
    for tensor in tensors_in(call.out):
        call.graph.set(tensor, views)


def matmul(call: Call) -> None:
    a, b = call.args[0], call.get(1, "other", call.kwargs.get("mat2"))
    if call.name == "__rmatmul__":
        a, b = b, a
    if a.ndim < 2 or b.ndim < 2:
        unknown(call)
        return
    lead = broadcast_lead(call, a, b)
    rows, columns = call.graph.views(a), call.graph.views(b)
    contract(call, (a, a.ndim - 1), (b, b.ndim - 2))
    straight = call.graph.name(b) in call.graph.parameters
    out = View(columns[-1].axis, straight or columns[-1].linear)
    call.set([*lead, rows[-2], out])


def broadcast_lead(call: Call, a: Tensor, b: Tensor) -> list[View]:
    """Batch dimensions of a product."""
    lead = [View(fixed(int(size))) for size in call.out.shape[:-2]]
    mine, theirs = call.graph.views(a)[:-2], call.graph.views(b)[:-2]
    for back in range(1, len(lead) + 1):
        found = [v[-back] for v in (mine, theirs) if len(v) >= back]
        found = [v for v in found if call.graph.table.size(v.axis) == call.out.shape[-2 - back]]
        axis = found[0].axis
        for other in found[1:]:
            axis = call.graph.unite(axis, other.axis, "it meets a fixed size in a product")
        lead[-back] = View(axis)
    return lead


def contract(call: Call, a: tuple[Tensor, int], b: tuple[Tensor, int]) -> None:
    """A sum of products over a dimension of each: a weight reads it, or two activations meet."""
    graph = call.graph
    weights = [side for side in (a, b) if graph.name(side[0]) in graph.parameters]
    for weight, dim in weights:
        graph.axis(weight, dim, Role.CONSUMER)
        other = 1 if dim == 0 else 0
        if weight.ndim == 2:
            graph.axis(weight, other, Role.PRODUCER)
    first, second = (graph.views(tensor)[dim].axis for tensor, dim in (a, b))
    if not weights:
        meet(call, first, second)
    graph.unite(first, second, "it is summed over with something of fixed size")


def meet(call: Call, queries: Axis, keys: Axis) -> None:
    """Queries and keys are multiplied and summed: rows that compute keys get that role."""
    graph, table = call.graph, call.graph.table
    mine, theirs = set(table.leaves(queries)), set(table.leaves(keys))
    leaves = {
        (name, dim): set(table.leaves(view.axis))
        for name, views in graph.bound.items()
        for dim, view in enumerate(views)
    }
    both = any(mine & found and theirs & found for found in leaves.values())
    if mine & theirs or both:
        table.fix((*queries, *keys), "queries and keys come out of one weight")
        return
    for place, found in leaves.items():
        roles = graph.roles.get(place, [])
        if theirs & found and (not roles or Role.PRODUCER in roles):  # without: a table of keys
            graph.keys[place] = keys


def einsum(call: Call) -> None:
    equation, operands = call.args[0], call.args[1:]
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or "." in equation or len(tensors) != 2:
        unknown(call)
        return
    inputs, _, result = equation.replace(" ", "").partition("->")
    first, second = inputs.split(",")
    for letter in dict.fromkeys(first):
        if letter in second:
            sides = (tensors[0], first.index(letter)), (tensors[1], second.index(letter))
            if letter in result:
                a, b = (call.graph.views(t)[d].axis for t, d in sides)
                call.graph.unite(a, b, "it meets a fixed size in a product")
            else:
                contract(call, *sides)
    views: list[View] = []
    for letter in result:
        where = (tensors[0], first) if letter in first else (tensors[1], second)
        views.append(call.graph.views(where[0])[where[1].index(letter)]._replace(linear=False))
    lost = (set(first) ^ set(second)) - set(result)
    for tensor, letters in zip(tensors, (first, second), strict=True):
        alone = [d for d, letter in enumerate(letters) if letter in lost]
        call.graph.fix([call.graph.views(tensor)[d] for d in alone], "einsum() sums over it")
    call.set(views)


def nothing(call: Call) -> None:
    """A result that does not depend on entries: a mask of positions, random numbers."""
    for tensor in tensors_in(call.out):
        call.graph.set(tensor, fixed_like(tensor))
