"""Add a head a stage: each time another last layer joins, with the name of the stage.

What: one backbone, and for every stage a head of its own; the newest answers. A name that is taken
gets a number behind it.
Equation: heads' = heads ∪ {stage: H'}, output = H'(backbone), H' = H (exact) or new.
Hyperparameters: `fresh`, whether it starts anew instead of as a copy.
When it fails: a head that is tied to the embedding. A fresh head forgets what the old one could do.
Evidence: a head a task over a shared backbone is the baseline of continual learning.
Reference: Li & Hoiem, Learning without Forgetting, arXiv 1606.09282.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

import torch

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.operators.add_head import TAKEN, begin_anew, heads_at, joined


@dataclass(frozen=True)
class AddStageHead:
    """A head with the stage's name beside the present ones."""

    fresh: bool = False
    shares = False

    @property
    def preserves(self) -> bool:
        return not self.fresh

    def propose(self, host: Host) -> Edit:
        module, known = heads_at(host)
        return joined(module, known, free_name(host.stage, {*known, *TAKEN}))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        if self.fresh:
            begin_anew(grown, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0


def free_name(stage: str, taken: Container[str]) -> str:
    """The stage as the name of a module, with a number where it is taken."""
    word = re.sub(r"\W", "_", stage, flags=re.ASCII) or "head"
    word = word if word.isidentifier() else f"_{word}"
    number, name = 2, word
    while name in taken:
        number, name = number + 1, f"{word}_{number}"
    return name
