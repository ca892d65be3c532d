"""Layers with weights: linear, convolutions, embedding, normalisations."""

from __future__ import annotations

import torch
from torch import Tensor

from progtrain.growth.axes import Axis
from progtrain.growth.rules.shapes import fixed_like, forget, label, unknown
from progtrain.growth.trace import Call, NormUse, View
from progtrain.growth.widen_space import Norm, Role


def linear(call: Call) -> None:
    graph, weight, views = call.graph, call.get(1, "weight"), call.views
    graph.bind(weight, 1, views[-1].axis, Role.CONSUMER)
    graph.behind.setdefault(graph.name(weight) or "", []).append(views[-1].behind)
    rows = graph.axis(weight, 0, Role.PRODUCER)
    graph.bind(call.get(2, "bias"), 0, rows, Role.PRODUCER)
    call.set([*views[:-1], View(rows, linear=True)])


def convolution(call: Call) -> None:
    graph, weight, groups = call.graph, call.get(1, "weight"), call.get(6, "groups", 1)
    channels = call.views[1 - weight.ndim].axis
    rows = graph.axis(weight, 0, Role.PRODUCER)
    if groups == 1:
        graph.bind(weight, 1, channels, Role.CONSUMER)
    else:  # channels and rows are (groups, of each group)
        names = [label(groups) or "groups", ""]
        group, inner = graph.table.split(channels, [int(groups), weight.shape[1]], names)
        graph.bind(weight, 1, inner, Role.CONSUMER)
        graph.demand(groups, group, "a grouped convolution")
        made = graph.table.split(rows, [int(groups), weight.shape[0] // int(groups)], names)[0]
        graph.unite(group, made, "it is the groups of a convolution")
    _convolved(call, rows, straight=groups == 1)


def convolution_transposed(call: Call) -> None:
    graph, weight, groups = call.graph, call.get(1, "weight"), call.get(6, "groups", 1)
    if groups != 1:
        unknown(call)
        return
    graph.bind(weight, 0, call.views[1 - weight.ndim].axis, Role.CONSUMER)
    _convolved(call, graph.axis(weight, 1, Role.PRODUCER), straight=True)


def _convolved(call: Call, rows: Axis, straight: bool) -> None:
    weight: Tensor = call.get(1, "weight")
    for dim in range(2, weight.ndim):
        call.graph.fix([call.graph.views(weight)[dim]], "it is the size of a kernel")
    call.graph.bind(call.get(2, "bias"), 0, rows, Role.PRODUCER)
    lead = call.views[: -weight.ndim + 1]
    positions = fixed_like(call.out)[len(lead) + 1 :]
    call.set([*lead, View(rows, straight), *positions])


def embedding(call: Call) -> None:
    graph, weight = call.graph, call.get(1, "weight")
    vocabulary = graph.views(weight)[0]
    graph.fix([vocabulary], "it is indexed by the input")
    columns = graph.axis(weight, 1, Role.PRODUCER)
    call.set([*call.views, View(columns, linear=True)])


def batch_norm(call: Call) -> None:
    at = 1 if call.x.ndim > 1 else 0
    axis = call.views[at].axis
    for index, name, role in (
        (1, "running_mean", Role.MEAN),
        (2, "running_var", Role.VARIANCE),
        (3, "weight", Role.GAIN),
        (4, "bias", Role.SHIFT),
    ):
        call.graph.bind(call.get(index, name), 0, axis, role)
    call.set([view._replace(linear=False) for view in call.views])


def instance_norm(call: Call) -> None:
    """Every channel by itself; arguments are those of batch norm."""
    batch_norm(call)


def layer_norm(call: Call) -> None:
    _normalised(call, Norm.LAYER, call.get(4, "eps", 1e-5))


def rms_norm(call: Call) -> None:
    eps = call.get(3, "eps")
    _normalised(call, Norm.RMS, torch.finfo(call.x.dtype).eps if eps is None else eps)


def _normalised(call: Call, kind: Norm, eps: float) -> None:
    graph, shape, weight = call.graph, call.get(1, "normalized_shape"), call.get(2, "weight")
    bias, gain = call.get(3, "bias") if kind is Norm.LAYER else None, graph.name(weight) or ""
    lead, views = call.views[: -len(shape)], call.views[-len(shape) :]
    module = graph.modules[gain.rpartition(".")[0]]
    held = eps if getattr(module, "eps", "none") in (eps, None) else None
    for dim, (size, view) in enumerate(zip(shape, views, strict=True)):
        graph.demand(size, view.axis, call.name)
        graph.bind(weight, dim, view.axis, Role.GAIN)
        graph.bind(bias, dim, view.axis, Role.SHIFT)
        graph.norms.append(NormUse(view.axis, kind, gain, held, view.linear))
    lead = [view._replace(linear=False) for view in lead]
    call.set([*lead, *(View(view.axis, False, gain) for view in views)])


def group_norm(call: Call) -> None:
    graph, channels, groups = call.graph, call.views[1].axis, call.get(1, "num_groups")
    weight, bias, eps = call.get(2, "weight"), call.get(3, "bias"), call.get(4, "eps", 1e-5)
    names = [label(groups) or "groups", ""]
    sizes = [int(groups), call.x.shape[1] // int(groups)]
    group, inner = graph.table.split(channels, sizes, names)
    graph.demand(groups, group, "group_norm")
    graph.bind(weight, 0, channels, Role.GAIN)
    graph.bind(bias, 0, channels, Role.SHIFT)
    graph.norms.append(NormUse(inner, Norm.GROUP, graph.name(weight) or "", eps, False))
    call.set([view._replace(linear=False) for view in call.views])


def local_response_norm(call: Call) -> None:
    call.graph.fix(call.views[1:2], "a local response norm looks at neighbouring channels")
    forget(call)


def prelu(call: Call) -> None:
    weight = call.get(1, "weight")
    if weight.numel() > 1:
        call.graph.bind(weight, 0, call.views[1].axis, Role.GAIN)
    call.set([view._replace(linear=False) for view in call.views])
