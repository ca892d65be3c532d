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

from progtrain.errors import GrowthError, require
from progtrain.growth.add_head import AddHead as HeadJoins
from progtrain.growth.add_head import Heads
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import reinitialise
from progtrain.growth.operators.outputs import head_of, output_space
from progtrain.growth.spaces import Spaces


@dataclass(frozen=True)
class AddHead:
    """A head called `name` beside the present one."""

    name: str = "second"
    fresh: bool = False
    shares = False

    def __post_init__(self) -> None:
        good = self.name.isidentifier() and self.name != "first"
        require(good, "name", self.name, "a word that is no head's name yet")

    @property
    def preserves(self) -> bool:
        return not self.fresh

    def propose(self, host: Host) -> Edit:
        module = head_of(output_space(host, Spaces.of(host.model, host.probe.x)))
        around, inside, _ = module.rpartition(".heads.")
        holder = host.model.get_submodule(around) if inside else None
        if not isinstance(holder, Heads):
            return Edit((HeadJoins(module, self.name, wraps=True),))
        if self.name in holder.heads:
            known = ", ".join(holder.heads)
            raise GrowthError(f"There is a head {self.name} already; heads: {known}.")
        return Edit((HeadJoins(around, self.name, wraps=False),))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for change in grown.edit.changes:
            if self.fresh and isinstance(change, HeadJoins):
                reinitialise(grown.model.get_submodule(change.new), generator)

    def flops(self, grown: Grown) -> float:
        return 0.0
