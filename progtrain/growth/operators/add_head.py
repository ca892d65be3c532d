"""Add a head: a second last layer over the same backbone, which answers from then on.

What: the old head stays under its name, frozen; the new one is a copy of it, or fresh.
Equation: heads' = heads ∪ {name: H'}, output = H'(backbone), H' = H (exact) or new.
Hyperparameters: `name`; `fresh`, whether it starts anew instead of as a copy.
When it fails: two heads of one name. A fresh head forgets what the old one could do.
Evidence: a head a task over a shared backbone is the baseline of continual learning.
Reference: Li & Hoiem, Learning without Forgetting, arXiv 1606.09282.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from progtrain.errors import GrowthError, require
from progtrain.growth.add_head import FIRST, Heads
from progtrain.growth.add_head import AddHead as HeadJoins
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import reinitialise
from progtrain.growth.operators.outputs import head_of, output_space
from progtrain.growth.spaces import Spaces

TAKEN = frozenset(
    {FIRST, "ema", *dir(nn.ModuleDict)}
)  # by metrics, or by the module that holds them


@dataclass(frozen=True)
class AddHead:
    """A head called `name` beside the present one."""

    name: str = "second"
    fresh: bool = False
    shares = False

    def __post_init__(self) -> None:
        good = self.name.isidentifier() and self.name not in TAKEN
        require(good, "name", self.name, "a word that is no head's name yet")

    @property
    def preserves(self) -> bool:
        return not self.fresh

    def propose(self, host: Host) -> Edit:
        module, known = heads_at(host)
        if self.name in known:
            told = ", ".join(known)
            raise GrowthError(f"There is a head {self.name} already; heads: {told}.")
        return joined(module, known, self.name)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        if self.fresh:
            begin_anew(grown, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0


def heads_at(host: Host) -> tuple[str, list[str]]:
    """The module that is the head, or holds the heads, and the names of those; none for one."""
    every = Spaces.of(host.model, host.probe.x)
    module = head_of(output_space(host, every, "cannot get another head"))
    around, inside, _ = module.rpartition(".heads.")
    holder = host.model.get_submodule(around) if inside else None
    return (around, list(holder.heads)) if isinstance(holder, Heads) else (module, [])


def joined(module: str, known: list[str], name: str) -> Edit:
    """A head `name` beside those that are `known` at `module`."""
    return Edit((HeadJoins(module, name, wraps=not known),))


def begin_anew(grown: Grown, generator: torch.Generator) -> None:
    """Fresh values for a head that has joined."""
    for change in grown.edit.changes:
        if isinstance(change, HeadJoins):
            reinitialise(grown.model.get_submodule(change.new), generator)
