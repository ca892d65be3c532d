"""How each torch function passes axes on: one small rule a function, by its name.

A function without a rule fixes every axis it touches and says so; nothing is guessed.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor

from progtrain.growth.edits import Role
from progtrain.growth.trace import Axis, Graph, Rule

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def _argument(args: Args, kwargs: Kwargs, index: int, name: str, default: Any = None) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def linear(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    x, weight = args[0], _argument(args, kwargs, 1, "weight")
    axes = graph.axes(x)
    graph.bind(weight, 1, axes[-1], Role.CONSUMER)
    rows = graph.produce(weight, _argument(args, kwargs, 2, "bias"), weight.shape[0])
    graph.set(out, [*axes[:-1], rows])


def convolution(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    x, weight = args[0], _argument(args, kwargs, 1, "weight")
    bias, groups = _argument(args, kwargs, 2, "bias"), _argument(args, kwargs, 6, "groups", 1)
    axes = graph.axes(x)
    spatial = [Axis()] * (out.ndim - 2)
    if groups == 1:
        graph.bind(weight, 1, axes[1], Role.CONSUMER)
        graph.set(out, [axes[0], graph.produce(weight, bias, weight.shape[0]), *spatial])
    elif groups == x.shape[1] == weight.shape[0]:  # depthwise: every channel keeps to itself
        graph.bind(weight, 0, axes[1], Role.PRODUCER)
        graph.bind(bias, 0, axes[1], Role.PRODUCER)
        graph.set(out, [axes[0], axes[1]._replace(linear=False), *spatial])
    else:
        graph.fix(axes, "a grouped convolution reads it")
        graph.set(out, [Axis()] * out.ndim)


def batch_norm(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    axes = graph.axes(args[0])
    graph.bind(_argument(args, kwargs, 1, "running_mean"), 0, axes[1], Role.MEAN)
    graph.bind(_argument(args, kwargs, 2, "running_var"), 0, axes[1], Role.VARIANCE)
    graph.bind(_argument(args, kwargs, 3, "weight"), 0, axes[1], Role.GAIN)
    graph.bind(_argument(args, kwargs, 4, "bias"), 0, axes[1], Role.SHIFT)
    graph.set(out, [axis._replace(linear=False) for axis in axes])


def layer_norm(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    axes, shape = graph.axes(args[0]), _argument(args, kwargs, 1, "normalized_shape")
    weight, bias = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "bias")
    axis, module = axes[-1], (graph.name(weight) or "?").rpartition(".")[0]
    whole = axis.outer == axis.inner == 1
    if axis.node is not None and len(shape) == 1 and whole and module in graph.layer_norms:
        graph.bind(weight, 0, axis, Role.GAIN)
        graph.bind(bias, 0, axis, Role.SHIFT)
        graph.nodes[graph.root(axis.node)].norms.append((module, axis.linear))
    else:
        graph.fix(
            axes[-len(shape) :], "a layer norm reads it that is over several axes or no LayerNorm"
        )
    graph.set(out, [a._replace(linear=False) for a in axes])


def elementwise(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    """Any function of one tensor that acts on every entry alone."""
    graph.set(out, [axis._replace(linear=False) for axis in graph.axes(args[0])])


def same(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    """The same values: a copy, a cast, dropout in evaluation."""
    graph.set(out, graph.axes(args[0]))


def _broadcast(graph: Graph, out: Tensor, args: Args) -> list[Axis]:
    tensors = [a for a in args[:2] if isinstance(a, Tensor) and a.ndim > 0]
    axes = [Axis()] * out.ndim
    for tensor in tensors:
        if graph.name(tensor) is not None:
            continue
        own = graph.axes(tensor)
        for back in range(1, tensor.ndim + 1):
            if tensor.shape[-back] == 1 and out.shape[-back] > 1:
                continue  # repeated along this axis
            first = tensor is tensors[0]
            axes[-back] = (
                own[-back]
                if first
                else graph.unite(axes[-back], own[-back], "it is added to an axis of fixed size")
            )
    for tensor in tensors:
        if graph.name(tensor) is not None:
            graph.fix(axes, f"the parameter {graph.name(tensor)} is used on it directly")
    return axes


def add(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    axes = _broadcast(graph, out, args)
    constant = any(not isinstance(a, Tensor) for a in args[:2])
    graph.set(out, [a._replace(linear=a.linear and not constant) for a in axes])


def multiply(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    axes = _broadcast(graph, out, args)
    scaled = any(not isinstance(a, Tensor) for a in args[:2])
    graph.set(out, [a._replace(linear=a.linear and scaled) for a in axes])


def pool(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    """Pooling and interpolation: channels stay, the spatial size is the input's affair."""
    axes = graph.axes(args[0])
    graph.set(out, [*(a._replace(linear=False) for a in axes[:2]), *[Axis()] * (out.ndim - 2)])


def _merged(graph: Graph, axes: list[Axis], sizes: list[int]) -> Axis:
    growing = [i for i, axis in enumerate(axes) if axis.node is not None]
    if len(growing) != 1:
        graph.fix(axes, "it is merged with another space")
        return Axis()
    at = growing[0]
    axis = axes[at]
    outer, inner = prod(sizes[:at]), prod(sizes[at + 1 :])
    return axis._replace(outer=outer * axis.outer, inner=axis.inner * inner)


def flatten(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    x = args[0]
    start = _argument(args, kwargs, 1, "start_dim", 0) % x.ndim
    end = _argument(args, kwargs, 2, "end_dim", -1) % x.ndim
    axes = graph.axes(x)
    merged = _merged(graph, axes[start : end + 1], list(x.shape[start : end + 1]))
    graph.set(out, [*axes[:start], merged, *axes[end + 1 :]])


def reshape(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    """Only the reshape that flattens all but leading dimensions is known."""
    x = args[0]
    kept = out.ndim - 1
    if out.shape == x.shape:
        graph.set(out, graph.axes(x))
    elif kept < x.ndim and out.shape[:kept] == x.shape[:kept]:
        flatten(graph, out, (x, kept), {})
    else:
        unknown("reshape")(graph, out, args, kwargs)


def reduce(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    """Mean, sum or maximum over some axes."""
    x = args[0]
    dims = _argument(args, kwargs, 1, "dim")
    dims = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {d % x.ndim for d in dims}
    axes = graph.axes(x)
    graph.fix([axes[d] for d in gone], "it is summed over")
    keep = _argument(args, kwargs, 2, "keepdim", False)
    kept = [Axis() if i in gone else a for i, a in enumerate(axes) if keep or i not in gone]
    graph.set(out, kept)


def permute(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    dims = args[1] if isinstance(args[1], list | tuple) else args[1:]
    axes = graph.axes(args[0])
    graph.set(out, [axes[d] for d in dims])


def transpose(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
    axes = list(graph.axes(args[0]))
    a, b = args[1], args[2]
    axes[a], axes[b] = axes[b], axes[a]
    graph.set(out, axes)


def unknown(name: str) -> Rule:
    """The rule of a function that has none."""

    def fix_all(graph: Graph, out: Tensor, args: Args, kwargs: Kwargs) -> None:
        for given in (*args, *kwargs.values()):
            for tensor in given if isinstance(given, list | tuple) else [given]:  # cat takes a list
                if isinstance(tensor, Tensor) and graph.known(tensor):
                    graph.fix(graph.axes(tensor), f"{name}() reads it and has no rule yet")
        graph.set(out, [Axis()] * out.ndim)

    return fix_all


_ELEMENTWISE = (
    "relu relu_ gelu silu silu_ tanh sigmoid elu leaky_relu selu mish hardtanh hardswish relu6 "
    "softplus exp log sqrt rsqrt abs neg pow square clamp erf hardsigmoid logsigmoid"
)
_SAME = "dropout alpha_dropout feature_dropout dropout2d contiguous clone detach to float identity"
_POOL = (
    "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d max_pool1d avg_pool1d "
    "adaptive_avg_pool1d adaptive_max_pool1d interpolate"
)
RULES: dict[str, Rule] = {
    "linear": linear,
    "conv1d": convolution,
    "conv2d": convolution,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "flatten": flatten,
    "reshape": reshape,
    "view": reshape,
    "permute": permute,
    "transpose": transpose,
    **dict.fromkeys(["add", "add_", "sub", "sub_", "__radd__", "__rsub__", "rsub"], add),
    **dict.fromkeys(["mul", "mul_", "div", "div_", "true_divide", "__rmul__"], multiply),
    **dict.fromkeys(["mean", "sum", "amax", "amin"], reduce),
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_SAME.split(), same),
    **dict.fromkeys(_POOL.split(), pool),
}


def rule(name: str) -> Rule:
    return RULES.get(name) or unknown(name)
