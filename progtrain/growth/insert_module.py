"""A new module that joins a module of the host: the change as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.inserted import KINDS, PLACES, Inserted
from progtrain.growth.tensors import owner
from progtrain.growth.widen_space import Slab


@dataclass(frozen=True)
class InsertModule:
    """The module `module` is wrapped together with a new one, whose output is added to its own."""

    module: str
    place: str  # behind, beside
    kind: str  # branch, attention, adapter
    sizes: Mapping[str, Any]  # what the new module is made by

    @property
    def inserted(self) -> str:
        """The new module's name."""
        return f"{self.module}.inserted"

    def rename(self, name: str) -> str:
        if name == self.module or name.startswith(f"{self.module}."):
            return f"{self.module}.host{name[len(self.module) :]}"
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        return tensor

    def apply(self, model: nn.Module) -> None:
        """Wrap it; values are torch's until the operator fills them, and draw no random numbers."""
        parent, attribute = owner(model, self.module)
        host = getattr(parent, attribute)
        like = next(p for p in model.parameters() if p.is_floating_point())
        with torch.random.fork_rng(devices=[]):
            new = KINDS[self.kind](**self.sizes).to(like.device, like.dtype)
        setattr(parent, attribute, PLACES[self.place](host, new).train(host.training))

    def revert(self, model: nn.Module) -> None:
        parent, attribute = owner(model, self.module)
        wrapped = getattr(parent, attribute)
        assert isinstance(wrapped, Inserted)
        setattr(parent, attribute, wrapped.host)

    def slabs(self) -> list[Slab]:
        """None: the whole module is new, and `Edit.inserted` names it."""
        return []

    def describe(self) -> str:
        return f"+1 {self.kind} {self.place} {self.module}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
