"""A network in the middle of a ramp as plain modules: alphas become weights where that is exact.

    columns that read new units     W[:, new] ← α W[:, new]       (x α) W = x (α W)
    a new module's last layer       W ← α W, b ← α b              α f(x)
    a new block                     stays a blend, as a module: x + α (block(x) − x)

A weight that several modules hold (an embedding that is the head's too) is scaled in a copy of its
own for the module that reads new units by it; whoever reads another one's weight keeps a hook.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.gates import gates
from progtrain.growth.inserted import KINDS
from progtrain.growth.tensors import holders_by_tensor, owner
from progtrain.growth.widen_space import Slab
from progtrain.run import Event


class Blended(nn.Module):
    """x + α (block(x) − x) for a fixed α; attributes that it lacks are those of the block."""

    def __init__(self, block: nn.Module, alpha: float) -> None:
        super().__init__()
        self.block, self.alpha = block, alpha

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or name == "block":  # while it is being copied
                raise
            return getattr(self.block, name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.block(x, *args, **kwargs)
        return torch.lerp(x.to(out.dtype), out, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}"


def bake(model: nn.Module, events: Iterable[Event]) -> list[str]:
    """Take every alpha that is not 1 into `model`, in place; what is left of blends, in words."""
    left: list[str] = []
    blocks: dict[str, float] = {}
    columns = _Columns(model)
    for event in (each for each in events if each.alive and each.alpha != 1):
        for slab in event.slabs:
            if slab.consumer and slab.readers:
                left += columns.scale(slab, event)
        for name in event.inserted:
            _scale_output(model.get_submodule(name), event.alpha)
        blocks |= {name: event.alpha for name in event.blocks}
    for name in sorted(blocks, key=lambda each: -each.count(".")):  # inner ones first
        parent, attribute = owner(model, name)
        setattr(parent, attribute, Blended(getattr(parent, attribute), blocks[name]))
        left.append(f"{name} is blended in at {blocks[name]:g}, as a module Blended")
    return left


class _Columns:
    """Scales new columns in the weights of those that read them, as the network held them first."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.holders = model, holders_by_tensor(model)
        self.own: dict[tuple[int, str], nn.Parameter] = {}  # of modules that have left a tie

    @torch.no_grad()
    def scale(self, slab: Slab, event: Event) -> list[str]:
        holder, attribute = owner(self.model, slab.tensor)
        weight: nn.Parameter = getattr(holder, attribute)
        holders = self.holders[id(weight)]
        readers = [self.model.get_submodule(name) for name in slab.readers]
        if any((reader, attribute) not in holders for reader in readers):
            return self._keep_hook(slab, event)
        for reader in readers:
            mine = weight if len(holders) == len(readers) else self._untied(reader, attribute)
            slab.write(mine, slab.read(mine) * event.alpha)
            if len(holders) == len(readers):
                return []
        told = f"{' and '.join(slab.readers)} has a weight of its own, tied to none"
        return [f"{told}, with alpha {event.alpha:g} in it"]

    def _untied(self, reader: nn.Module, attribute: str) -> nn.Parameter:
        key = (id(reader), attribute)
        if key not in self.own:
            before: nn.Parameter = getattr(reader, attribute)
            self.own[key] = nn.Parameter(before.clone(), requires_grad=before.requires_grad)
            setattr(reader, attribute, self.own[key])
        return self.own[key]

    def _keep_hook(self, slab: Slab, event: Event) -> list[str]:
        alpha = torch.tensor(event.alpha, device=next(self.model.parameters()).device)
        only = replace(event, slabs=(slab,), blocks=(), inserted=())
        gates(self.model, only, alpha, isolates=False)
        told = " and ".join(slab.readers)
        return [f"{told} reads {slab.tensor} with alpha {event.alpha:g} in it, by a hook"]


@torch.no_grad()
def _scale_output(inserted: nn.Module, alpha: float) -> None:
    assert isinstance(inserted, tuple(KINDS.values()))
    for parameter in inserted.get_submodule("out").parameters():
        parameter.mul_(alpha)
