"""Where a new module can join: what every module of a host reads and returns, and which dimension
of it holds the features.

One traced forward pass says it, so the features are those that spaces find (`spaces.py`). Where no
space lies in a dimension they are the second one of a feature map and the last one of all else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor, nn

from progtrain.growth.grow import Host
from progtrain.growth.newborn import evaluate
from progtrain.growth.rules.table import rule
from progtrain.growth.spaces import Space, Spaces
from progtrain.growth.trace import record
from progtrain.growth.widen_space import Norm, Role

Shape = tuple[int, ...]
_NORMS = {Norm.LAYER: "layer", Norm.RMS: "rms"}
_CHANNELS_FIRST = {3: "conv1d", 4: "conv2d"}


@dataclass(frozen=True)
class Site:
    """A module, and what one that joins it must fit."""

    module: str
    refused: str  # why nothing can join it there; empty if it can
    before: Shape = ()  # of its input, batch first
    after: Shape = ()  # of its output
    layer: str = ""  # linear, conv1d or conv2d: over which dimension features lie
    norm: str = ""  # the host's over what the new module reads: batch, layer, rms, none
    turn: int = 0  # when it runs
    cut: bool = False  # it gives nothing negative: an activation has cut it off

    @property
    def keeps(self) -> bool:
        return self.before == self.after

    def features(self, place: str) -> tuple[int, int]:
        """What the new module reads, and what it returns."""
        dim = -1 if self.layer == "linear" else 1
        read = self.after if place == "behind" else self.before
        return read[dim], self.after[dim]

    @property
    def positions(self) -> int:
        """Between batch and features; 0 where there is no such dimension."""
        lie = self.after[1:-1] if self.layer == "linear" else self.after[2:]
        count = 1 if lie else 0
        for size in lie:
            count *= size
        return count


@dataclass
class _Passed:
    """One call of a module."""

    read: Tensor | None
    version: int
    turn: int
    gave: Any = None
    overwritten: bool = False
    cut: bool = False


@contextmanager
def _watched(model: nn.Module, signs: bool = False) -> Generator[dict[str, list[_Passed]]]:
    """Every call of every module but the network itself, by name; `signs`: look at values too."""
    calls: dict[str, list[_Passed]] = {}
    turns = count()

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            read = args[0] if args and isinstance(args[0], Tensor) else None
            version = read._version if read is not None else 0
            calls.setdefault(name, []).append(_Passed(read, version, next(turns)))

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            call = next(c for c in reversed(calls[name]) if c.gave is None)
            call.gave = out
            if signs and isinstance(out, Tensor):  # at once: the next call may write into it
                call.cut = not bool((out < 0).any())
            call.overwritten = call.read is not None and call.read._version != call.version

        return hook

    named = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_pre_hook(enter(name)) for name, module in named]
    handles += [module.register_forward_hook(leave(name)) for name, module in named]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def sites(host: Host, place: str) -> list[Site]:
    """A site for every module of the host but the host itself, in the order of its code."""
    with _watched(host.model) as calls:
        every = Spaces(record(host.model, host.probe.x, rule))
    few = max(1, len(host.probe.x) // 2)
    with _watched(host.model, signs=True) as fewer:
        evaluate(host.model, host.probe.x[:few])
    names = [name for name, _ in host.model.named_modules() if name]
    return [_site(name, calls.get(name, []), fewer.get(name, []), every, place) for name in names]


def _site(name: str, calls: list[_Passed], fewer: list[_Passed], every: Spaces, place: str) -> Site:
    reason = _refused(calls, fewer, place)
    if reason:
        return Site(name, reason)
    call, less = calls[0], fewer[0]
    before = _shape(call.read) if call.read is not None else ()
    after = _shape(call.gave)
    dim = _features(call.gave, every)
    layer = "linear" if dim == len(after) - 1 else _CHANNELS_FIRST.get(len(after), "")
    if not layer or (layer != "linear" and dim != 1):
        where = f"dimension {dim} of its {len(after)}-dimensional output"
        return Site(name, f"its features lie in {where}, for which there is no layer")
    if place == "beside":
        assert call.read is not None
        reason = _beside(before, after, dim, _features(call.read, every))
    read = call.gave if place == "behind" or call.read is None else call.read
    norm = _norm(read, dim, layer, every)
    return Site(name, reason, before, after, layer, norm, less.turn, less.cut)


def _refused(calls: list[_Passed], fewer: list[_Passed], place: str) -> str:
    """Why a new module finds nothing to add to, whatever its kind."""
    if not calls or not fewer:
        return "the network never calls it as a module"
    outputs = [call.gave for call in calls]
    if not all(isinstance(out, Tensor) for out in outputs):
        return f"it returns a {type(outputs[0]).__name__}, not one tensor"
    after = _shape(outputs[0])
    if not outputs[0].is_floating_point() or len(after) < 2:
        return "its output has no dimension of features"
    if len({_shape(out) for out in outputs}) > 1:
        return "it runs several times, on different shapes"
    if _shape(fewer[0].gave)[1:] != after[1:]:
        return "its first dimension is not the batch"
    if place == "behind":
        return ""
    if any(call.read is None or not call.read.is_floating_point() for call in calls):
        return "its input is not one tensor of features; try place=behind"
    return "it writes into its input; try place=behind" if calls[0].overwritten else ""


def _beside(before: Shape, after: Shape, dim: int, read: int) -> str:
    """Why what lies beside it cannot be added to its output."""
    if len(before) != len(after) or read != dim:
        return f"it turns {before} into {after}; try place=behind"
    rest = [d for d in range(len(after)) if d != dim and before[d] != after[d]]
    if rest:
        words = [" × ".join(str(shape[d]) for d in rest) for shape in (before, after)]
        return f"it makes {words[0]} positions {words[1]}; try place=behind"
    return ""


def _features(tensor: Tensor, every: Spaces) -> int:
    """The dimension that holds the features: that of a space, else by convention."""
    usual = 1 if tensor.ndim in (4, 5) else tensor.ndim - 1
    widths = [d for d in range(1, tensor.ndim) if list(_spaces(tensor, d, every))]
    return usual if usual in widths or not widths else widths[-1]


def _spaces(tensor: Tensor, dim: int, every: Spaces) -> Iterable[Space]:
    nodes = every.graph.table.leaves(every.graph.views(tensor)[dim].axis)
    return (space for space in every.found if space.node in nodes)


def _norm(tensor: Tensor, dim: int, layer: str, every: Spaces) -> str:
    """The kind of norm that the host has over these features: one of another kind, or one behind a
    nonlinearity, would keep them from growing exactly."""
    over = list(_spaces(tensor, dim, every))
    kinds = {norm.kind for space in over for norm in space.norms}
    if kinds:
        straight = every.graph.views(tensor)[dim].linear and len(kinds) == 1
        return _NORMS.get(kinds.pop(), "none") if straight else "none"
    batch = any(part.role is Role.MEAN for space in over for part in space.parts)
    return "batch" if batch and (layer != "linear" or tensor.ndim == 2) else "none"


def _shape(tensor: Tensor) -> Shape:
    return tuple(int(size) for size in tensor.shape)
