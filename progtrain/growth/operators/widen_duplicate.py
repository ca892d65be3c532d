"""Widen by copying units and sharing their outgoing weights among the copies (Net2WiderNet).

Chen et al., arXiv 1511.05641: with g(i) the unit that new unit i copies, producers W'[i] = W[g(i)]
and consumers W'[:, i] = a_i ∘ W[:, g(i)], where the a of all copies of a unit sum to 1. Equal
shares keep copies equal for ever under any optimizer that treats them alike. One uneven share for
each unit (LEMON, arXiv 2310.07999) is not enough where two copies are new: their gradients are
parallel, and Adam makes parallel gradients equal. Every entry therefore has a share of its own, and
new entries start with empty optimizer state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from progtrain.growth.edits import Edit, Role, WidenSpace
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import host_entries, slab_of, tensor_of, widened
from progtrain.growth.operators.widen import check_widen, growable, grown_size


@dataclass(frozen=True)
class WidenDuplicate:
    """`factor` × the units of matching spaces; exact, under layer norms at whole factors only."""

    spaces: str = "*"
    factor: float = 2.0
    unevenness: float = 0.5  # 0: equal shares; else the deviation of noise that cancels
    preserves = True
    shares = True

    def __post_init__(self) -> None:
        check_widen(self.factor, self.unevenness)

    def propose(self, host: Host) -> Edit:
        return Edit(
            tuple(
                WidenSpace(
                    space.name,
                    space.size,
                    new := grown_size(space.size, self.factor),
                    space.parts,
                    inexact=_inexact(space.name, space.size, new, bool(space.layer_norms)),
                )
                for space in growable(host, self.spaces)
            )
        )

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for change in widened(grown.edit):
            source_H = _sources(change, generator)
            for part in change.parts:
                tensor = tensor_of(grown.model, part.tensor)
                whole = slab_of(part, replace(change, old=0)).view(tensor)
                host = host_entries(tensor, part, change)
                copied = host.index_select(part.dim + 1, source_H.to(host.device))
                if part.role is Role.CONSUMER:
                    noise = torch.randn(copied.shape, generator=generator, dtype=torch.float64)
                    share = _shares(self.unevenness * noise, part.dim + 1, source_H)
                    copied = copied * share.to(copied)
                whole.copy_(copied)


def _inexact(name: str, old: int, new: int, normed: bool) -> str:
    if normed and new % old:
        return f"a layer norm over {name} sees {new} units of which {old} cannot be copied equally"
    return ""


def _sources(change: WidenSpace, generator: torch.Generator) -> Tensor:
    """g: the first `old` units are themselves; then whole rounds of all units, the rest drawn."""
    rounds, rest = divmod(change.new, change.old)
    drawn = torch.randperm(change.old, generator=generator)[:rest]
    return torch.cat([torch.arange(change.old).repeat(rounds), drawn])


def _shares(noise: Tensor, dim: int, source_H: Tensor) -> Tensor:
    """a: equal shares, and `noise` that cancels among the copies of each unit, along `dim`."""
    total = torch.zeros_like(noise).index_add_(dim, source_H, noise).index_select(dim, source_H)
    copies_H = torch.bincount(source_H)[source_H]
    copies = copies_H.reshape([-1 if d == dim else 1 for d in range(noise.ndim)])
    return noise + (1 - total) / copies
