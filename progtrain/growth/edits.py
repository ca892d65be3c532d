"""Structural changes as data: the list of edits rebuilds any shape a network has ever had.

An edit is applied by shape only and deterministically: old entries keep their place and value, new
entries are zero until an operator fills them. The same walk carries weights, optimizer moments and
anything else that has a tensor's shape, so nothing can be forgotten in one of them.

Axis layout: a dimension is `outer × size × inner`, of which `size` grows. A linear layer behind a
flatten has `inner = height × width`: every channel owns that many consecutive columns.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn


class Role(Enum):
    """What a tensor dimension does for a space."""

    PRODUCER = "producer"  # rows that compute the space
    CONSUMER = "consumer"  # columns that read it
    GAIN = "gain"  # of a normalisation over or beside it
    SHIFT = "shift"
    MEAN = "mean"  # running statistics
    VARIANCE = "variance"


@dataclass(frozen=True)
class Part:
    """One (tensor, dimension) pair that changes size with a space."""

    tensor: str  # parameter or buffer name
    dim: int
    outer: int  # the dimension is outer × size × inner
    inner: int
    role: Role


@dataclass(frozen=True)
class Slab:
    """New entries of one tensor: `start:stop` of the middle factor of `dim`."""

    tensor: str
    dim: int = -1  # -1: the whole tensor is new
    outer: int = 1
    inner: int = 1
    start: int = 0
    stop: int = 0
    consumer: bool = False  # reads what is new

    def view(self, tensor: Tensor) -> Tensor:
        """The new entries as a view, with the dimension split into (outer, new, inner)."""
        if self.dim < 0:
            return tensor
        size = tensor.shape[self.dim] // (self.outer * self.inner)
        split = tensor.unflatten(self.dim, (self.outer, size, self.inner))
        return split.narrow(self.dim + 1, self.start, self.stop - self.start)

    def mask(self, tensor: Tensor) -> Tensor:
        """True where entries are new; the tensor's shape."""
        mask = torch.zeros_like(tensor, dtype=torch.bool)
        self.view(mask).fill_(True)
        return mask


@dataclass(frozen=True)
class WidenSpace:
    """A space grows from `old` to `new` units, appended at the end."""

    space: str
    old: int
    new: int
    parts: tuple[Part, ...]
    rescaled_norms: tuple[str, ...] = ()  # layer norms over mean-padded units: eps × old/new
    inexact: str = ""  # why the function changes whatever the values are; empty if it need not

    def rename(self, name: str) -> str:
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        """`tensor` (named `name`) in its new shape: old entries in place, new ones zero."""
        for part in self.parts:
            if part.tensor == name:
                tensor = _pad(tensor, part, self.old, self.new)
        return tensor

    def slabs(self) -> list[Slab]:
        return [
            Slab(p.tensor, p.dim, p.outer, p.inner, self.old, self.new, p.role is Role.CONSUMER)
            for p in self.parts
        ]

    def apply(self, model: nn.Module) -> None:
        for name in dict.fromkeys(part.tensor for part in self.parts):
            holders = owners(model, name)
            old = getattr(*holders[0])
            new = self.carry(name, old.detach())
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            for module, attribute in holders:
                setattr(module, attribute, new)
                _match_attributes(module)
        for name in self.rescaled_norms:
            norm = model.get_submodule(name)
            assert isinstance(norm, nn.LayerNorm)
            norm.eps *= self.old / self.new

    @property
    def norm_gain(self) -> float:
        """Factor on a rescaled layer norm's old gains (LEMON, arXiv 2310.07999, average
        expansion)."""
        return sqrt(self.old / self.new)

    def describe(self) -> str:
        return f"{self.space} {self.old} → {self.new}"


@dataclass(frozen=True)
class InsertBlock:
    """A block joins a stack at position `at`, shaped as the block `source` of the stack now."""

    stack: str
    at: int
    source: int

    def rename(self, name: str) -> str:
        """Where a module or tensor of that name is afterwards."""
        prefix = f"{self.stack}." if self.stack else ""
        index, dot, rest = name.removeprefix(prefix).partition(".")
        if not name.startswith(prefix) or not index.isdecimal() or int(index) < self.at:
            return name
        return f"{prefix}{int(index) + 1}{dot}{rest}"

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        return tensor

    @property
    def block(self) -> str:
        return f"{self.stack}.{self.at}" if self.stack else str(self.at)

    def apply(self, model: nn.Module) -> None:
        stack = model.get_submodule(self.stack)
        assert isinstance(stack, nn.Sequential | nn.ModuleList)
        stack.insert(self.at, copy.deepcopy(stack[self.source]))

    def describe(self) -> str:
        return f"+1 block in {self.stack or 'the model'} at {self.at}"


Change = WidenSpace | InsertBlock


@dataclass(frozen=True)
class Edit:
    """Changes applied in order; each speaks of names as they are when its turn comes."""

    changes: tuple[Change, ...]

    def apply(self, model: nn.Module) -> None:
        """Change `model` in place; new entries are zero, new blocks copies of their source."""
        for change in self.changes:
            change.apply(model)

    def rename(self, name: str) -> str:
        for change in self.changes:
            name = change.rename(name)
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        """What has the shape of tensor `name` before the edit, in the shape after it."""
        for change in self.changes:
            tensor = change.carry(name, tensor)
            name = change.rename(name)
        return tensor

    def slabs(self) -> tuple[Slab, ...]:
        """New entries of tensors that were there before, under the names after the edit."""
        slabs: list[Slab] = []
        for change in self.changes:
            slabs = [_moved(slab, change) for slab in slabs]
            slabs += change.slabs() if isinstance(change, WidenSpace) else []
        return tuple(slabs)

    def blocks(self) -> tuple[str, ...]:
        """New blocks, under the names after the edit."""
        blocks: list[str] = []
        for change in self.changes:
            blocks = [change.rename(block) for block in blocks]
            blocks += [change.block] if isinstance(change, InsertBlock) else []
        return tuple(blocks)

    def describe(self) -> str:
        widened = [c.describe() for c in self.changes if isinstance(c, WidenSpace)]
        added: dict[str, int] = {}
        for change in self.changes:
            if isinstance(change, InsertBlock):
                added[change.stack] = added.get(change.stack, 0) + 1
        deeper = [
            f"+{n} block{'s' if n > 1 else ''} in {stack or 'the model'}"
            for stack, n in added.items()
        ]
        return ", ".join(widened + deeper)

    def to_json(self) -> list[dict[str, Any]]:
        return [_change_to_json(change) for change in self.changes]

    @staticmethod
    def from_json(data: Iterable[dict[str, Any]]) -> Edit:
        return Edit(tuple(_change_from_json(item) for item in data))

    @property
    def inexact(self) -> str:
        """Why this change cannot preserve the function; empty if it can."""
        reasons = [c.inexact for c in self.changes if isinstance(c, WidenSpace)]
        return next((reason for reason in reasons if reason), "")


def _moved(slab: Slab, change: Change) -> Slab:
    return replace(slab, tensor=change.rename(slab.tensor))


def _change_to_json(change: Change) -> dict[str, Any]:
    data = asdict(change)
    if isinstance(change, WidenSpace):
        data["parts"] = [[p.tensor, p.dim, p.outer, p.inner, p.role.value] for p in change.parts]
        data["rescaled_norms"] = list(change.rescaled_norms)
        return {"change": "widen", **data}
    return {"change": "insert", **data}


def _change_from_json(data: dict[str, Any]) -> Change:
    fields = {key: value for key, value in data.items() if key != "change"}
    match data["change"]:
        case "widen":
            parts = tuple(Part(t, d, o, i, Role(r)) for t, d, o, i, r in fields.pop("parts"))
            norms = tuple(fields.pop("rescaled_norms"))
            return WidenSpace(**fields, parts=parts, rescaled_norms=norms)
        case "insert":
            return InsertBlock(**fields)
        case other:
            raise ValueError(f"unknown change {other!r} in an edit")


def owner(model: nn.Module, tensor: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter or buffer, and the attribute's name."""
    module, _, attribute = tensor.rpartition(".")
    return model.get_submodule(module), attribute


def owners(model: nn.Module, tensor: str) -> list[tuple[nn.Module, str]]:
    """Every module that holds the parameter or buffer of that name; several if it is shared."""
    module, attribute = owner(model, tensor)
    wanted = getattr(module, attribute)
    return [
        (holder, name)
        for holder in model.modules()
        for name, held in (
            *holder.named_parameters(recurse=False, remove_duplicate=False),
            *holder.named_buffers(recurse=False, remove_duplicate=False),
        )
        if held is wanted
    ]


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Names that match a shell pattern; several patterns are separated by `|`."""
    patterns = pattern.split("|")
    return [n for n in names if any(fnmatch.fnmatchcase(n, p.strip()) for p in patterns)]


def _pad(tensor: Tensor, part: Part, old: int, new: int) -> Tensor:
    split = tensor.unflatten(part.dim, (part.outer, old, part.inner))
    shape = list(split.shape)
    shape[part.dim + 1] = new
    padded = split.new_zeros(shape)
    padded.narrow(part.dim + 1, 0, old).copy_(split)
    return padded.flatten(part.dim, part.dim + 2)


def _match_attributes(module: nn.Module) -> None:
    """Keep the sizes that torch's layers repeat as attributes equal to their tensors' shapes."""
    match module:
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.Conv1d() | nn.Conv2d():
            depthwise = module.groups > 1 and module.groups == module.in_channels
            module.out_channels = module.weight.shape[0]
            module.groups = module.out_channels if depthwise else module.groups
            module.in_channels = module.weight.shape[1] * module.groups
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            tensor = module.weight if module.affine else module.running_mean
            assert tensor is not None
            module.num_features = tensor.shape[0]
        case nn.LayerNorm():
            module.normalized_shape = tuple(module.weight.shape)
        case _:
            pass
