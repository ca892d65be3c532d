"""Attention as one call: scaled_dot_product_attention and nn.MultiheadAttention."""

from __future__ import annotations

from progtrain.growth.axes import Axis
from progtrain.growth.rules.arithmetic import meet
from progtrain.growth.rules.shapes import fixed_like
from progtrain.growth.trace import Call, View
from progtrain.growth.widen_space import Role


def scaled_dot_product_attention(call: Call) -> None:
    """q (…, heads, L, E), k (…, groups, S, E), v (…, groups, S, V) → (…, heads, L, V)."""
    graph = call.graph
    q, k, v = (graph.views(call.get(i, name)) for i, name in enumerate(("query", "key", "value")))
    meet(call, q[-1].axis, k[-1].axis)
    graph.unite(q[-1].axis, k[-1].axis, "queries meet keys of fixed size")
    if call.kwargs.get("scale") is None:
        graph.scaled.append(q[-1].axis)
    for mine, theirs, values in zip(q[:-2], k[:-2], v[:-2], strict=True):
        graph.unite(theirs.axis, values.axis, "keys and values differ")
        heads = mine.axis
        if call.kwargs.get("enable_gqa"):
            groups = graph.table.size(theirs.axis)
            sizes = [groups, graph.table.size(heads) // groups]
            heads = graph.table.split(heads, sizes)[0] if sizes[1] > 1 else heads
        graph.unite(heads, theirs.axis, "queries and keys differ")
    _masked(call, [*(view.axis for view in q[:-1]), k[-2].axis])
    call.set([*(view._replace(linear=False) for view in q[:-1]), View(v[-1].axis, v[-1].linear)])


def _masked(call: Call, logits: list[Axis]) -> None:
    """A mask or bias that is added to the logits (…, heads, L, S), or repeated over them."""
    mask, table = call.get(3, "attn_mask"), call.graph.table
    if mask is None:
        return
    for view, axis in zip(reversed(call.graph.views(mask)), reversed(logits), strict=False):
        repeated = table.size(view.axis) == 1 and (table.size(axis) > 1 or not view.axis)
        if not repeated:
            call.graph.unite(axis, view.axis, "its mask has a fixed size")


def multi_head_attention_forward(call: Call) -> None:
    """torch's own attention: rows of a packed projection are (three, heads, head size)."""
    graph, query, heads = call.graph, call.args[0], call.get(4, "num_heads")
    stream = graph.views(query)[-1].axis
    inner = _projections(call, heads, query.shape[-1] // int(heads))
    out, bias = call.get(11, "out_proj_weight"), call.get(12, "out_proj_bias")
    graph.bind(out, 1, inner, Role.CONSUMER)
    rows = graph.axis(out, 0, Role.PRODUCER)
    graph.bind(bias, 0, rows, Role.PRODUCER)
    where = "multi_head_attention_forward()"
    graph.demand(heads, inner[:1], where)
    graph.demand(call.get(3, "embed_dim_to_check"), stream, where)
    graph.demand(graph.extents(query)[-1], inner, where)  # its code takes one for the other
    attended, weights = call.out
    graph.set(attended, [*graph.views(query)[:-1], View(rows, linear=True)])
    if weights is not None:
        graph.set(weights, fixed_like(weights))


def _projections(call: Call, heads: int, size: int) -> Axis:
    """The (heads, head size) axis of queries, keys and values, united."""
    graph, packed = call.graph, call.get(5, "in_proj_weight")
    bias, extras = call.get(6, "in_proj_bias"), (call.get(7, "bias_k"), call.get(8, "bias_v"))
    if packed is not None:
        weights, count = [packed], 3
    else:
        weights = [call.kwargs[f"{name}_proj_weight"] for name in "qkv"]
        count = 1
    inner = _heads(call, graph.axis(weights[0], 0, Role.PRODUCER), count, heads, size)
    for weight, source in zip(weights, call.args, strict=False):
        graph.bind(weight, 1, graph.views(source)[-1].axis, Role.CONSUMER)
        own = _heads(call, graph.axis(weight, 0, Role.PRODUCER), count, heads, size)
        graph.unite(inner, own, "queries and keys differ")
    if packed is not None and len({id(t) for t in call.args[:3]}) > 1:
        for source in call.args[1:3]:
            graph.bind(packed, 1, graph.views(source)[-1].axis, Role.CONSUMER)
    if bias is not None:
        own = _heads(call, graph.axis(bias, 0, Role.PRODUCER), 3, heads, size)
        graph.unite(inner, own, "its bias has a fixed size")
    for extra in extras:
        graph.bind(extra, 2, inner, Role.PRODUCER)
    inner = graph.table.resolve(inner)
    graph.table.fix(inner[1:], "queries, keys and values come out of one weight")
    return inner


def _heads(call: Call, rows: Axis, count: int, heads: int, size: int) -> Axis:
    table, sizes, labels = call.graph.table, [int(heads), size], ["num_heads", "head_dim"]
    if count == 1:
        return tuple(f for axis in table.split(rows, sizes, labels) for f in axis)
    three, *inner = table.split(rows, [count, *sizes], ["qkv", *labels])
    table.fix(three, "they are queries, keys and values")
    return tuple(factor for axis in inner for factor in axis)
