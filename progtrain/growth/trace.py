"""Records one forward pass: which calls were made, on which tensors, with which parameters.

`TorchFunctionMode` sees every torch function a module calls, at the level a reader knows (linear,
conv2d, batch_norm, add), whatever control flow led there. The rules in rules.py read axes off it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from progtrain.growth.edits import Part, Role


class Axis(NamedTuple):
    """One dimension of an activation: `outer × node × inner`; `node` None is of fixed size."""

    node: int | None = None
    outer: int = 1
    inner: int = 1
    linear: bool = False  # nothing but sums lie between the producers and here


@dataclass
class Node:
    """A dimension that must have one size wherever it appears; united with others by `Graph`."""

    size: int
    name: str
    parts: list[Part] = field(default_factory=lambda: list[Part]())
    norms: list[tuple[str, bool]] = field(default_factory=lambda: list[tuple[str, bool]]())
    fixed: str = ""  # why it cannot grow


class Graph:
    """Axes of all tensors seen, and which of them are one space (union–find)."""

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
        self.names: dict[int, str] = {}
        for name, tensor in tensors:
            self.names.setdefault(id(tensor), name)
        norms = [name for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
        self.layer_norms = frozenset(norms)
        self.nodes: list[Node] = []
        self._parent: list[int] = []
        self._axes: dict[int, list[Axis]] = {}
        self._bound: dict[tuple[str, int], Axis] = {}
        self._alive: list[Tensor] = []  # ids stay unique while the tensors live

    def new(self, size: int, name: str) -> int:
        self.nodes.append(Node(size, name))
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def root(self, node: int) -> int:
        while self._parent[node] != node:
            node = self._parent[node]
        return node

    def name(self, tensor: object) -> str | None:
        """The parameter's or buffer's name, None for anything else."""
        return self.names.get(id(tensor))

    def set(self, tensor: Tensor, axes: Iterable[Axis]) -> None:
        self._alive.append(tensor)
        self._axes[id(tensor)] = list(axes)

    def axes(self, tensor: Tensor) -> list[Axis]:
        """Axes of an activation; all fixed for a tensor that no rule has produced."""
        return self._axes.get(id(tensor)) or [Axis()] * tensor.ndim

    def known(self, tensor: Tensor) -> bool:
        return id(tensor) in self._axes

    def fix(self, axes: Iterable[Axis], reason: str) -> None:
        """Say that these axes cannot change size."""
        for axis in axes:
            if axis.node is not None:
                node = self.nodes[self.root(axis.node)]
                node.fixed = node.fixed or reason

    def unite(self, a: Axis, b: Axis, reason: str) -> Axis:
        """Two axes that must have one size; `reason` where one of them cannot grow."""
        if a.node is None or b.node is None:
            self.fix((a, b), reason)
            return Axis()
        if (a.outer, a.inner) != (b.outer, b.inner):
            self.fix((a, b), "it appears in two layouts that do not match")
            return a
        keep, drop = sorted((self.root(a.node), self.root(b.node)))
        if keep != drop:
            self._parent[drop] = keep
            kept, dropped = self.nodes[keep], self.nodes[drop]
            kept.parts += dropped.parts
            kept.norms += dropped.norms
            kept.fixed = kept.fixed or dropped.fixed
        return Axis(keep, a.outer, a.inner, a.linear and b.linear)

    def bind(self, tensor: object, dim: int, axis: Axis, role: Role) -> None:
        """A parameter's dimension belongs to the axis's space."""
        name = self.name(tensor)
        if tensor is None:
            return
        if name is None:
            self.fix((axis,), "a weight that is no parameter or buffer of the model reads it")
            return
        before = self._bound.get((name, dim))
        if before is not None:  # a weight that is used twice
            self.unite(before, axis, "a shared weight meets an axis of fixed size")
            return
        self._bound[name, dim] = axis
        if axis.node is not None:
            part = Part(name, dim, axis.outer, axis.inner, role)
            self.nodes[self.root(axis.node)].parts.append(part)

    def produce(self, weight: Tensor, bias: Tensor | None, size: int) -> Axis:
        """The axis computed by the rows of a weight."""
        name = self.name(weight) or "?"
        before = self._bound.get((name, 0))
        if before is not None:  # a weight that is used twice, perhaps beside another bias
            self.bind(bias, 0, before, Role.PRODUCER)
            return before
        axis = Axis(self.new(size, name.removesuffix(".weight")), linear=True)
        self.bind(weight, 0, axis, Role.PRODUCER)
        self.bind(bias, 0, axis, Role.PRODUCER)
        return axis


Rule = Callable[[Graph, Tensor, tuple[Any, ...], dict[str, Any]], None]


class Recorder(TorchFunctionMode):
    """Applies the rule of every call as it happens."""

    def __init__(self, graph: Graph, rules: Callable[[str], Rule]) -> None:
        super().__init__()
        self.graph, self.rules = graph, rules

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if isinstance(out, Tensor):
            self.rules(name)(self.graph, out, args, kwargs)
        elif isinstance(out, list | tuple):  # split, unbind and the like have no rule yet
            for item in out:
                if isinstance(item, Tensor):
                    self.rules(name)(self.graph, item, args, kwargs)
        return out


def record(model: nn.Module, x: Tensor, rules: Callable[[str], Rule]) -> Graph:
    """Run `model` on `x` in evaluation mode and return the graph of its axes."""
    graph = Graph(model)
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), Recorder(graph, rules):
            out = model(x)
    finally:
        for module, mode in training.items():
            module.training = mode
    outputs: tuple[Any, ...] = out if isinstance(out, tuple) else (out,)
    for tensor in outputs:
        if isinstance(tensor, Tensor):
            graph.fix(graph.axes(tensor), "it is the model's output")
    return graph
