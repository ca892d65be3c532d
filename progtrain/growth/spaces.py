"""What can grow wider in a network: its spaces, found by one forward.

A space is a set of tensor dimensions that must change size together: one hidden width, one channel
group, the heads of an attention, a residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from progtrain.growth.axes import Axis, Leaf, Sum
from progtrain.growth.follow import DemandError, Sizes, demands, follow, held
from progtrain.growth.rules.table import rule
from progtrain.growth.trace import Graph, NormUse, record
from progtrain.growth.widen_space import Norm, Part, Resize, Role, WidenSpace

_TRACED = 2  # samples: axes do not depend on how many, and all activations live until the end
_READING = (Role.CONSUMER, Role.TIED, Role.KEY)
_PRODUCING = (Role.PRODUCER, Role.TIED, Role.KEY)


@dataclass(frozen=True)
class Space:
    """A width: `size` units, and every tensor dimension that holds them."""

    name: str  # of the first module that computes it
    size: int
    parts: tuple[Part, ...]
    norms: tuple[NormUse, ...]  # what mixes its units
    fixed: str  # why it cannot grow; empty if it can
    step: int  # it grows by multiples of this
    follows: tuple[str, ...]  # spaces that the code makes grow with it
    inner: bool  # a factor inside another: head size, channels of a group
    behind: tuple[str, ...]  # gains of norms whose output a tied weight reads
    node: int  # in the graph it was found in

    def tensors(self, role: Role) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.role is role)

    @property
    def padding(self) -> tuple[str, ...]:
        """Tensors with the gains of norms that stay exact when units of their mean join."""
        exact = not self.inexact
        return tuple(dict.fromkeys(norm.module for norm in self.norms)) if exact else ()

    @property
    def inexact(self) -> str:
        """Why new units of any value change the function; empty if they need not."""
        kinds = {norm.kind for norm in self.norms}
        for norm in self.norms:
            where = norm.module.rpartition(".")[0] or "its code"
            if norm.kind in (Norm.MEAN, Norm.GROUP):
                return f"{where} takes a {norm.kind.value} over it"
            if not norm.linear:
                return f"{norm.kind.value} {where} sees it behind a nonlinearity"
            if len(kinds) > 1 or not norm.module or norm.eps is None:
                return f"{norm.kind.value} {where} cannot be rescaled"
        return ""


def spaces(model: nn.Module, x: Tensor) -> list[Space]:
    """Every space of `model`, in the order of the forward pass on `x` (batch, ...)."""
    return Spaces.of(model, x).found


class Spaces:
    """The spaces of one trace, and what growing them changes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._demands = demands(graph)
        self._norms: dict[int, list[NormUse]] = {}
        for norm in graph.norms:
            for node in graph.table.leaves(norm.axis):
                whole = graph.table.resolve(norm.axis) == (Leaf(node),)
                use = norm if whole else norm._replace(kind=Norm.MEAN)
                self._norms.setdefault(node, []).append(use)

    @staticmethod
    def of(model: nn.Module, x: Tensor) -> Spaces:
        return Spaces(record(model, x[:_TRACED], rule))

    @cached_property
    def parts(self) -> dict[int, list[tuple[str, int]]]:
        """Tensor dimensions by node, in the order of their use."""
        table, found = self.graph.table, dict[int, list[tuple[str, int]]]()
        for name, views in self.graph.bound.items():
            for dim, view in enumerate(views):
                for node in table.leaves(view.axis):
                    found.setdefault(node, []).append((name, dim))
        return found

    @cached_property
    def names(self) -> dict[int, str]:
        """A readable name for every node that parameters have."""
        names: dict[int, str] = {}
        for node in sorted(self.parts, key=lambda node: not self._is_width(node)):
            name = self._name(node, self.parts[node])
            taken = sum(other == name or other.startswith(f"{name}#") for other in names.values())
            names[node] = f"{name}#{taken + 1}" if taken else name
        return names

    @cached_property
    def found(self) -> list[Space]:
        """Every space."""
        return [self._space(node) for node in self.parts if self._is_width(node)]

    def _is_width(self, node: int) -> bool:
        """Whether something computes it; sizes of kernels and constants of the code are none."""
        entry, dims = self.graph.table.nodes[node], self.parts[node]
        known = [dim for dim in dims if self.graph.roles.get(dim)]
        if not any(self._role(*dim, node) in _PRODUCING for dim in known):
            return False
        whole = any(
            self.graph.table.resolve(self.graph.bound[t][d].axis) == (Leaf(node),) for t, d in dims
        )
        return whole or not entry.fixed or bool(entry.label)

    def _name(self, node: int, dims: list[tuple[str, int]]) -> str:
        producing = [d for d in dims if self._role(*d, node) in _PRODUCING]
        computed = [d for d in producing if self.graph.roles.get(d) and d[0].endswith("weight")]
        tensor, dim = (computed or producing or dims)[0]
        module = tensor.removesuffix(".weight")
        axis = self.graph.table.resolve(self.graph.bound[tensor][dim].axis)
        if axis == (Leaf(node),):
            return module if producing else f"{module}[{dim}]"
        entry = self.graph.table.nodes[node]
        place = [n for n in self.graph.table.leaves(axis)].index(node)
        return f"{module}:{entry.label or f'part{place}'}"

    def _role(self, tensor: str, dim: int, node: int) -> Role:
        roles = self.graph.roles.get((tensor, dim), [])
        if node in self.graph.table.leaves(self.graph.keys.get((tensor, dim), ())):
            return Role.KEY
        if Role.CONSUMER in roles and Role.PRODUCER in roles:
            return Role.TIED
        order = (Role.CONSUMER, Role.MEAN, Role.VARIANCE, Role.GAIN, Role.SHIFT)
        return next((role for role in order if role in roles), Role.PRODUCER)

    def _space(self, node: int) -> Space:
        entry = self.graph.table.nodes[node]
        parts = self.layouts(node, {})
        fixed, step, follows = entry.fixed or self._unreadable(node, parts), 1, tuple[str, ...]()
        if not fixed:
            fixed, step, follows = self._growth(node)
        norms = tuple(dict.fromkeys(self._norms.get(node, ())))
        tied = [part.tensor for part in parts if part.role is Role.TIED]
        behind = tuple(dict.fromkeys(b for t in tied for b in self.graph.behind.get(t, ())))
        return Space(
            self.names[node],
            entry.size,
            parts,
            norms,
            fixed,
            step,
            follows,
            entry.inner,
            behind,
            node,
        )

    def _unreadable(self, node: int, parts: tuple[Part, ...]) -> str:
        if not any(part.role in _READING for part in parts):
            return "nothing reads it"
        for part in parts:
            axis = self.graph.bound[part.tensor][part.dim].axis
            if _times(self.graph.table.resolve(axis), node) > 1:
                return f"it meets itself in {part.tensor}"
        return ""

    def _growth(self, node: int) -> tuple[str, int, tuple[str, ...]]:
        """Why not, or the smallest step and what follows."""
        reason, size = "", self.graph.table.nodes[node].size
        for step in self._steps(node):
            try:
                moved = follow(self.graph, self._demands, {node: size + step})
            except DemandError as error:
                reason = reason or str(error)
                continue
            others = [self.names.get(n, "") for n in moved.nodes if n != node]
            return "", step, tuple(name for name in others if name)
        return reason, 1, ()

    def _steps(self, node: int) -> list[int]:
        table = self.graph.table
        size = table.nodes[node].size
        near = {table.nodes[n].size for d in self._demands for n in table.leaves(d.axis)}
        return [1, *sorted(s for s in near if 1 < s < size), size]

    def layouts(self, node: int, sizes: Mapping[int, int]) -> tuple[Part, ...]:
        """Where the node's units lie, with other nodes at `sizes`."""
        parts: list[Part] = []
        for tensor, dim in self.parts.get(node, []):
            axis = self.graph.bound[tensor][dim].axis
            layout = self.graph.table.layout(axis, node, sizes)
            readers = tuple(self.graph.readers.get((tensor, dim), ()))
            parts.append(Part(tensor, dim, layout, self._role(tensor, dim, node), readers))
        return tuple(parts)

    @staticmethod
    def _settled(parts: tuple[Part, ...], final: tuple[Part, ...]) -> tuple[Part, ...]:
        """Parts that know where their units lie once all spaces of an edit have grown."""
        pairs = zip(parts, final, strict=True)
        return tuple(replace(p, final=None if p == f else f.layout) for p, f in pairs)

    def sizes(self, wanted: Mapping[int, int]) -> Sizes:
        """All sizes once the nodes in `wanted` have theirs; raises `DemandError`."""
        return follow(self.graph, self._demands, dict(wanted))

    def changes(self, sizes: Sizes) -> list[WidenSpace]:
        """The new sizes as changes one behind another."""
        table, done = self.graph.table, dict[int, int]()
        made: list[WidenSpace] = []
        for node, new in sizes.nodes.items():
            old = table.nodes[node].size
            if new == old or node not in self.parts:
                continue
            scaled = any(node in table.leaves(axis) for axis in self.graph.scaled)
            gain = (new / old) ** 0.5 if scaled else 1.0
            parts = self._settled(self.layouts(node, done), self.layouts(node, sizes.nodes))
            made.append(WidenSpace(self.names[node], old, new, parts, key_gain=gain))
            done[node] = new
        now = held(self.graph, self._demands)
        resizes = tuple(
            Resize(a.module, a.name, a.index, now[a], value) for a, value in sizes.held.items()
        )
        return [*made[:-1], replace(made[-1], resizes=resizes)] if made else made


def _times(axis: Axis, node: int) -> int:
    """How often a node is a factor of a product; a sum counts as its worst item."""
    count = 0
    for factor in axis:
        if factor == Leaf(node):
            count += 1
        elif isinstance(factor, Sum):
            count += max((_times(item, node) for item in factor.items), default=0)
    return count
