"""A space that grows: the change as data, and the walk that carries any tensor along.

Shapes change by the edit alone and deterministically: old entries keep their place and value, new
entries are zero until an operator fills them. The same walk carries weights, optimizer moments and
anything else that has a tensor's shape, so nothing can be forgotten in one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.layout import Layout, from_json, moved, positions, to_json
from progtrain.growth.tensors import holders_by_tensor, owner
from progtrain.hardware.shards import shape_of


class Role(Enum):
    """What a tensor dimension does for a space."""

    PRODUCER = "producer"  # rows that compute the space, or a parameter added to it
    CONSUMER = "consumer"  # columns that read it
    TIED = "tied"  # both: an embedding that is the head's weight too
    KEY = "key"  # rows that compute keys, which meet queries in a scalar product over the space
    GAIN = "gain"  # of a normalisation over or beside it, or any factor
    SHIFT = "shift"
    MEAN = "mean"  # running statistics
    VARIANCE = "variance"


class Norm(Enum):
    """What mixes the units of a space, and so limits how it can grow exactly."""

    LAYER = "layer norm"
    RMS = "RMS norm"
    GROUP = "group norm"
    MEAN = "mean"  # over the units


@dataclass(frozen=True)
class Part:
    """One (tensor, dimension) pair that changes size with a space."""

    tensor: str  # parameter or buffer name
    dim: int
    layout: Layout  # where the units lie in the dimension, when the change's turn comes
    role: Role
    readers: tuple[str, ...] = ()  # modules in whose forward a consumer reads
    final: Layout | None = None  # where they lie after the whole edit, if that is elsewhere


@dataclass(frozen=True)
class Slab:
    """Units `start:stop` of `units` in one dimension of a tensor, or a whole new tensor."""

    tensor: str
    dim: int = -1  # -1: the whole tensor is new
    layout: Layout = "unit"
    units: int = 0  # of the dimension now
    start: int = 0
    stop: int = 0
    consumer: bool = False  # reads what is new
    readers: tuple[str, ...] = ()  # modules in whose forward it does
    producer: bool = False  # rows that compute what is new

    def read(self, tensor: Tensor) -> Tensor:
        """A copy of the entries, with the dimension split into (units, entries a unit)."""
        if self.dim < 0:
            return tensor.clone()
        index_UK = self._index(tensor)
        return tensor.index_select(self.dim, index_UK.flatten()).unflatten(self.dim, index_UK.shape)

    def write(self, tensor: Tensor, value: Tensor | float) -> None:
        """Set the entries; `value` has the shape that `read` gives, or is one number."""
        if self.dim < 0:
            tensor.copy_(torch.as_tensor(value).expand_as(tensor))
        elif isinstance(value, Tensor):
            flat = value.to(tensor).flatten(self.dim, self.dim + 1)
            tensor.index_copy_(self.dim, self._index(tensor).flatten(), flat)
        else:
            tensor.index_fill_(self.dim, self._index(tensor).flatten(), value)

    def mask(self, tensor: Tensor) -> Tensor:
        """True for the entries; the tensor's shape."""
        mask = torch.zeros(shape_of(tensor), dtype=torch.bool, device=tensor.device)
        self.write(mask, True)
        return mask

    def after(self, part: Part, old: int, new: int) -> Slab:
        """The same entries after the space that `part` belongs to has grown."""
        if (part.layout, old) == (self.layout, self.units):
            return replace(self, units=new)
        index_D, size = moved(part.layout, old, new)
        places_UK = index_D[positions(self.layout, self.units)[self.start : self.stop]]
        places = tuple(tuple(row) for row in places_UK.tolist())
        count = len(places)
        return replace(self, layout=("at", size, *places), units=count, start=0, stop=count)

    def _index(self, tensor: Tensor) -> Tensor:
        return positions(self.layout, self.units)[self.start : self.stop].to(tensor.device)

    def to_json(self) -> dict[str, Any]:
        return to_json(asdict(self))

    @staticmethod
    def from_json(data: dict[str, Any]) -> Slab:
        typed: dict[str, Any] = {
            "layout": from_json(data["layout"]),
            "readers": tuple(data["readers"]),
        }
        return Slab(**{**data, **typed})


@dataclass(frozen=True)
class Resize:
    """A plain attribute of a module that repeats a size: `num_heads`, `groups`, an eps."""

    module: str
    attribute: str
    index: int  # into a tuple or list; -1: the attribute itself
    old: int | float | None
    new: int | float

    def apply(self, model: nn.Module) -> None:
        self._set(model, self.new)

    def revert(self, model: nn.Module) -> None:
        self._set(model, self.old)

    def _set(self, model: nn.Module, value: int | float | None) -> None:
        module = model.get_submodule(self.module)
        now = getattr(module, self.attribute)
        if self.index < 0:
            setattr(module, self.attribute, value)
        else:
            items = [*now[: self.index], value, *now[self.index + 1 :]]
            setattr(module, self.attribute, type(now)(items))


@dataclass(frozen=True)
class WidenSpace:
    """A space grows from `old` to `new` units, appended at the end."""

    space: str
    old: int
    new: int
    parts: tuple[Part, ...]
    resizes: tuple[Resize, ...] = ()
    norm: Norm | None = None  # that stays exact because new units are padded
    rescaled_norms: tuple[str, ...] = ()  # gains of norms over padded units: × √(old/new)
    key_gain: float = 1.0  # factor on keys, where logits are divided by √units
    sharing: tuple[str, ...] = ()  # gains of norms that share copies out before a tied weight
    inexact: str = ""  # why the function changes whatever the values are; empty if it need not

    def rename(self, name: str) -> str:
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        """`tensor` (named `name`) in its new shape: old entries in place, new ones zero."""
        for part in self.parts:
            if part.tensor == name:
                tensor = _pad(tensor, part, self.old, self.new)
        return tensor

    def shed(self, name: str, tensor: Tensor) -> Tensor:
        """The way back: a grown tensor's old entries in its old shape."""
        for part in reversed(self.parts):
            if part.tensor == name:
                kept_D = moved(part.layout, self.old, self.new)[0]
                tensor = tensor.index_select(part.dim, kept_D.to(tensor.device))
        return tensor

    def slabs(self) -> list[Slab]:
        """The new units in every tensor."""
        return [self.slab(part, self.old) for part in self.parts]

    def slab(self, part: Part, start: int = 0, stop: int = 0) -> Slab:
        """Units from `start` (to `stop`, else all), where they lie after the whole edit."""
        reads = part.role in (Role.CONSUMER, Role.TIED) and not self.silent
        stop = stop or self.new
        layout = part.layout if part.final is None else part.final
        rows = part.role in (Role.PRODUCER, Role.KEY)
        return Slab(part.tensor, part.dim, layout, self.new, start, stop, reads, part.readers, rows)

    def shares(self, part: Part) -> bool:
        """Whether the part sums over copies of units, so that they share its old weights."""
        if part.role in (Role.CONSUMER, Role.KEY):
            return True
        norms = {gain.rpartition(".")[0] for gain in self.sharing}
        scales = part.role in (Role.GAIN, Role.SHIFT)
        return part.tensor in self.sharing or (scales and part.tensor.rpartition(".")[0] in norms)

    @property
    def silent(self) -> bool:
        """Whether padding lets a norm give exact zeros for new units, whatever reads them."""
        tied = any(part.role is Role.TIED for part in self.parts)
        return self.norm is Norm.RMS or (self.norm is Norm.LAYER and tied)

    def apply(self, model: nn.Module) -> None:
        """Change shapes and sizes in place; new entries are zero."""
        for resize in self.resizes:
            resize.apply(model)
        self._reshape(model, self.carry)

    def revert(self, model: nn.Module) -> None:
        """Take the new units out again; old entries keep the values they have now."""
        for resize in self.resizes:
            resize.revert(model)
        self._reshape(model, self.shed)

    def _reshape(self, model: nn.Module, shaped: Callable[[str, Tensor], Tensor]) -> None:
        holding = holders_by_tensor(model)
        for name in dict.fromkeys(part.tensor for part in self.parts):
            holders = holding[id(getattr(*owner(model, name)))]
            before = getattr(*holders[0])
            after = shaped(name, before.detach())
            if isinstance(before, nn.Parameter):
                after = nn.Parameter(after, requires_grad=before.requires_grad)
            for module, attribute in holders:
                setattr(module, attribute, after)
                _match_attributes(module)

    @property
    def norm_gain(self) -> float:
        """Factor on a rescaled norm's old gains (LEMON, arXiv 2310.07999, average expansion;
        Gesmundo & Maile, arXiv 2308.06103, for RMS norms)."""
        return sqrt(self.old / self.new)

    def describe(self) -> str:
        return f"{self.space} {self.old} → {self.new}"

    def to_json(self) -> dict[str, Any]:
        parts = [[p.tensor, p.dim, p.layout, p.role.value, p.readers, p.final] for p in self.parts]
        norm = self.norm.name if self.norm else None
        return to_json({**asdict(self), "parts": parts, "norm": norm})

    @staticmethod
    def from_json(data: dict[str, Any]) -> WidenSpace:
        typed: dict[str, Any] = {
            "parts": tuple(
                Part(tensor, dim, from_json(layout), Role(role), tuple(readers), from_json(final))
                for tensor, dim, layout, role, readers, final in data["parts"]
            ),
            "resizes": tuple(Resize(**item) for item in data["resizes"]),
            "norm": Norm[data["norm"]] if data["norm"] else None,
            "rescaled_norms": tuple(data["rescaled_norms"]),
            "sharing": tuple(data["sharing"]),
        }
        return WidenSpace(**{**data, **typed})


def _pad(tensor: Tensor, part: Part, old: int, new: int) -> Tensor:
    index_D, size = moved(part.layout, old, new)
    shape = list(tensor.shape)
    shape[part.dim] = size
    return tensor.new_zeros(shape).index_copy_(part.dim, index_D.to(tensor.device), tensor)


def _match_attributes(module: nn.Module) -> None:
    """Keep the sizes that torch's layers repeat as attributes equal to their tensors' shapes."""
    match module:
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.Embedding():
            module.num_embeddings, module.embedding_dim = module.weight.shape
        case nn.Conv1d() | nn.Conv2d():
            module.out_channels = module.weight.shape[0]
            module.in_channels = module.weight.shape[1] * module.groups
        case nn.ConvTranspose1d() | nn.ConvTranspose2d():
            module.in_channels = module.weight.shape[0]
            module.out_channels = module.weight.shape[1] * module.groups
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            tensor = module.weight if module.affine else module.running_mean
            assert tensor is not None
            module.num_features = tensor.shape[0]
        case nn.GroupNorm():
            module.num_channels = module.weight.shape[0] if module.affine else module.num_channels
        case nn.MultiheadAttention():
            _match_attention(module)
        case _:
            pass


def _match_attention(module: nn.MultiheadAttention) -> None:
    width = module.out_proj.weight.shape[0]
    same = module.kdim == module.vdim == module.embed_dim
    module.embed_dim = width
    if same:
        module.kdim = module.vdim = width
