"""Records one forward pass: which calls were made, on which tensors, with which parameters.

`TorchFunctionMode` sees every torch function a module calls, at the level a reader knows (linear,
conv2d, batch_norm, add), whatever control flow led there. The rules in rules/ read axes off it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from progtrain.growth.axes import Axes, Axis, Fixed
from progtrain.growth.extents import Attribute, Extent, Of, Source, source_of
from progtrain.growth.widen_space import Norm, Role

OUTPUT = "it is the model's output"  # why its classes do not grow by themselves


class View(NamedTuple):
    """One dimension of an activation or a parameter."""

    axis: Axis
    linear: bool = False  # nothing but sums lie between the producers and here
    behind: str = ""  # gains of the norm that it has just left


class NormUse(NamedTuple):
    """Something that mixes the units of an axis."""

    axis: Axis
    kind: Norm
    module: str  # that holds the gains and eps; empty where there is none
    eps: float | None  # None: the code of no module says it
    linear: bool


class Demand(NamedTuple):
    """The code says `source` where an axis has to fit."""

    source: Source
    axis: Axis
    where: str  # the function


class Graph:
    """Axes of all tensors seen, and everything that ties them to each other."""

    def __init__(self, model: nn.Module) -> None:
        self.table = Axes()
        self.names: dict[int, str] = {}
        self.parameters: set[str] = set()
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self.names.setdefault(id(tensor), name)
            if tensor.is_floating_point():
                self.parameters.add(name)
        self.modules = dict(model.named_modules())
        self.bound: dict[str, list[View]] = {}  # axes of parameters, in the order of their use
        self.roles: dict[tuple[str, int], list[Role]] = {}
        self.norms: list[NormUse] = []
        self.demands: list[Demand] = []
        self.keys: dict[tuple[str, int], Axis] = {}  # rows that compute keys, over this axis
        self.scaled: list[Axis] = []  # logits over it are divided by √size
        self.behind: dict[str, list[str]] = {}  # gains of norms whose output a weight reads
        self.running: list[str] = []  # modules whose forward is under way, innermost last
        self.readers: dict[tuple[str, int], list[str]] = {}  # of weights, by tensor and dimension
        self._views: dict[int, list[View]] = {}
        self._alive: list[Tensor] = []  # ids stay unique while the tensors live

    def name(self, tensor: object) -> str | None:
        """The parameter's or buffer's name, None for anything else."""
        return self.names.get(id(tensor))

    def set(self, tensor: Tensor, views: Iterable[View]) -> None:
        if self.name(tensor) is None:  # an in-place operation on a parameter changes no axis
            self._alive.append(tensor)
            self._views[id(tensor)] = list(views)

    def views(self, tensor: Tensor) -> list[View]:
        """The dimensions of a tensor; fixed ones for what no rule has produced."""
        name = self.name(tensor)
        if name is None or name not in self.parameters:
            return self._views.get(id(tensor)) or [View(fixed(size)) for size in tensor.shape]
        if name not in self.bound:
            self.bound[name] = [View(self.table.new(size), True) for size in tensor.shape]
        return self.bound[name]

    def known(self, tensor: Tensor) -> bool:
        return id(tensor) in self._views or self.name(tensor) in self.parameters

    def axis(self, tensor: Tensor, dim: int, role: Role) -> Axis:
        """The axis of a weight's dimension, which has this role for it."""
        name, dim = self.name(tensor), dim % tensor.ndim
        if name is not None:
            roles = self.roles.setdefault((name, dim), [])
            roles += [role] if role not in roles else []
            if role is Role.CONSUMER:
                readers = self.readers.setdefault((name, dim), [])
                inside = self.running[-1] if self.running else ""
                readers += [inside] if inside not in readers else []
        return self.views(tensor)[dim].axis

    def bind(self, tensor: Tensor | None, dim: int, axis: Axis, role: Role) -> None:
        """A weight's dimension belongs to the axis."""
        if tensor is not None:
            name = self.name(tensor) or "a weight that is computed"
            if role is Role.CONSUMER and self.name(tensor) is None:
                self.table.fix(axis, "a weight that the code computes reads it")
            self.unite(axis, self.axis(tensor, dim, role), f"{name} has a fixed size")

    def unite(self, a: Axis, b: Axis, reason: str) -> Axis:
        return self.table.unite(a, b, reason)

    def fix(self, views: Iterable[View], reason: str) -> None:
        """Say that these dimensions cannot change size."""
        for view in views:
            self.table.fix(view.axis, reason)

    def demand(self, value: object, axis: Axis, where: str) -> None:
        """The code gives `value` for the size of an axis."""
        if isinstance(value, int) and value != -1:
            self.demands.append(Demand(source_of(value), axis, where))

    def extents(self, tensor: Tensor) -> torch.Size:
        """The tensor's shape, as sizes that know what they are the size of."""
        views = self.views(tensor)
        return torch.Size(
            [Extent(size, Of(view.axis)) for size, view in zip(tensor.shape, views, strict=True)]
        )


def fixed(size: int) -> Axis:
    return (Fixed(int(size)),) if size != 1 else ()


@dataclass(frozen=True)
class Call:
    """One call of a torch function."""

    graph: Graph
    name: str
    out: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by place or name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    @property
    def x(self) -> Tensor:
        return self.args[0] if self.args else self.kwargs["input"]

    @property
    def views(self) -> list[View]:
        """Dimensions of the first argument."""
        return self.graph.views(self.x)

    def set(self, views: Iterable[View]) -> None:
        """Dimensions of the result."""
        self.graph.set(self.out, views)


Rule = Callable[[Call], None]


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
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__
        if name in ("shape", "size"):
            shape = self.graph.extents(args[0])
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return shape if dim is None else shape[dim]
        if name == "numel":
            whole = tuple(factor for view in self.graph.views(args[0]) for factor in view.axis)
            return Extent(args[0].numel(), Of(whole))
        out = func(*args, **kwargs)
        if isinstance(out, Tensor | list | tuple):
            self.rules(name)(Call(self.graph, name, out, args, kwargs))
        return out


@contextmanager
def remembered(model: nn.Module) -> Generator[None]:
    """Whole numbers that modules hold are extents; as they were afterwards."""
    put: list[tuple[nn.Module, str, Any, Any]] = []
    for module_name, module in model.named_modules():
        for name, value in list(vars(module).items()):
            marked = _marked(module_name, name, value)
            if marked is not None:
                put.append((module, name, value, marked))
                vars(module)[name] = marked
    try:
        yield
    finally:
        for module, name, value, marked in put:
            if vars(module).get(name) is marked:
                vars(module)[name] = value


def _marked(module: str, name: str, value: Any) -> Any:
    if type(value) is int:
        return Extent(value, Attribute(module, name, -1))
    if type(value) in (tuple, list) and value and all(type(item) is int for item in value):
        marked = [Extent(item, Attribute(module, name, i)) for i, item in enumerate(value)]
        return type(value)(marked)
    return None


@contextmanager
def followed(model: nn.Module, graph: Graph) -> Generator[None]:
    """The graph knows which module is running."""

    def enter(name: str) -> Any:
        return lambda module, args: graph.running.append(name)

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        graph.running.pop()

    handles = [m.register_forward_pre_hook(enter(n)) for n, m in model.named_modules()]
    handles += [m.register_forward_hook(leave) for m in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Evaluation mode, entered from training: modules that keep something of their weights while
    they evaluate drop it at `train()`. Modes are as before afterwards."""
    training = {module: module.training for module in model.modules()}
    model.train()
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def record(model: nn.Module, x: Tensor, rules: Callable[[str], Rule]) -> Graph:
    """Run `model` on `x` in evaluation mode and return the graph of its axes."""
    graph = Graph(model)
    recorder = Recorder(graph, rules)
    with evaluating(model), torch.no_grad(), remembered(model), followed(model, graph), recorder:
        out = model(x)
    for tensor in tensors_in(out):
        graph.fix(graph.views(tensor), OUTPUT)
    return graph


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list | tuple):
        return []
    return [tensor for item in items for tensor in tensors_in(item)]
