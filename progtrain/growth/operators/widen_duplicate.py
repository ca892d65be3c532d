"""Widen by copying units and sharing their outgoing weights among the copies (Net2WiderNet).

What: every new unit is a copy of an old one; what reads it is divided among the copies.

Equation: with g(i) the unit that new unit i copies, producers W'[i] = W[g(i)] and consumers
W'[:, i] = a_i ∘ W[:, g(i)], where the a of all copies of a unit sum to 1. Behind a norm that a tied
weight reads, its gain and shift are divided instead; of queries and keys, the keys.

Hyperparameters: spaces, factor, size; unevenness, the deviation of noise on the shares that cancels
among the copies of a unit (HyperCloning's ± noise, drawn for every entry); 0 is equal shares.

When it fails: under a layer or RMS norm only whole factors are exact. Equal shares keep copies
equal for ever under any optimizer that treats them alike, Adam and Muon too. One uneven share for
each unit (LEMON) is not enough where two copies are new: their gradients are parallel, and Adam
makes parallel gradients equal. So every entry has a share of its own, and new entries start with
empty optimizer state. It cannot be blended in by a ramp, as the old units have given shares away.

Evidence: exact to 6e-14 in float64. At twice the inner width the final loss is 2.328 by equal
shares, 2.326 with noise, 2.323 uneven, 2.310 from scratch, 2.367 not grown (SPARKLING, ablation).

Reference: Chen et al., Net2Net, arXiv 1511.05641; Wang et al., LEMON, arXiv 2310.07999; Samragh et
al., HyperCloning, arXiv 2409.12903.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import widened
from progtrain.growth.operators.widen import check_widen, widenings
from progtrain.growth.spaces import Space
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Role, WidenSpace


@dataclass(frozen=True)
class WidenDuplicate:
    """`factor` × the units of matching spaces; exact, under layer norms at whole factors only."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    unevenness: float = 0.5  # 0: equal shares; else the deviation of noise that cancels
    preserves = True
    shares = True

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size, self.unevenness)

    def propose(self, host: Host) -> Edit:
        found = widenings(host, self.spaces, self.factor, self.size)
        return Edit(tuple(sharing(space, change) for space, change in found))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for change in widened(grown.edit):
            source_H = grown.sources[change.space] = sources(change, generator)
            for part in change.parts:
                tensor = tensor_of(grown.model, part.tensor)
                host = change.slab(part, 0, change.old).read(tensor)
                copied = host.index_select(part.dim, source_H.to(host.device))
                if change.shares(part):
                    noise = torch.randn(copied.shape, generator=generator, dtype=torch.float64)
                    share = _shares(self.unevenness * noise, part.dim, source_H)
                    copied = copied * share.to(copied)
                if part.role is Role.KEY:
                    copied = copied * change.key_gain
                change.slab(part).write(tensor, copied)

    def flops(self, grown: Grown) -> float:
        return 0.0


def sharing(space: Space, change: WidenSpace) -> WidenSpace:
    """The change with what else shares copies out, and why it is not exact."""
    return replace(change, inexact=_inexact(space, change), sharing=space.behind)


def _inexact(space: Space, change: WidenSpace) -> str:
    if space.norms and change.new % change.old:
        where = space.norms[0].module.rpartition(".")[0] or "its code"
        return (
            f"{space.norms[0].kind.value} {where} sees {change.new} units of {space.name} of which"
            f" {change.old} cannot be copied equally"
        )
    if space.norms and space.tensors(Role.KEY):
        return f"queries and keys over {space.name} are normalised, so copies cannot be shared out"
    if space.tensors(Role.TIED) and not all(space.behind):
        return f"{space.name} is read by a tied weight with no norm in between to share it"
    return ""


def sources(change: WidenSpace, generator: torch.Generator) -> Tensor:
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
