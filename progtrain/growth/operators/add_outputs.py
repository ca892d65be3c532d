"""Add outputs: new classes for a network that has learned the old ones.

What: the last layer gets `add` rows. Old outputs stay exactly as they are.
Equation: W' = [W; R], b' = [b; mean b], R normal with the deviation of W.
Hyperparameters: `add`.
When it fails: a head that is tied to an embedding. New outputs take part in a softmax at once, so
the loss over all classes moves though no old logit does.
Evidence: the head of class-incremental learning since iCaRL.
Reference: Rebuffi et al., iCaRL, arXiv 1611.07725.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import widened
from progtrain.growth.operators.outputs import output_space
from progtrain.growth.spaces import Spaces
from progtrain.growth.tensors import tensor_of


@dataclass(frozen=True)
class AddOutputs:
    """`add` outputs more; exact for the old ones."""

    add: int = 1
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        require(1 <= self.add <= 100_000, "add", self.add, "a whole number, 1 to 100000")

    def propose(self, host: Host) -> Edit:
        every = Spaces.of(host.model, host.probe.x)
        space = output_space(host, every)
        return Edit(tuple(every.changes(every.sizes({space.node: space.size + self.add}))))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for change in widened(grown.edit):
            for part in change.parts:
                tensor, slab = tensor_of(grown.model, part.tensor), change.slab(part, change.old)
                old, new = change.slab(part, 0, change.old).read(tensor), slab.read(tensor)
                noise = torch.randn(new.shape, generator=generator, dtype=torch.float64)
                spread = float(old.std(correction=0)) if tensor.ndim > 1 else 0.0
                mean = 0.0 if tensor.ndim > 1 else float(old.mean())
                slab.write(tensor, noise * spread + mean)

    def flops(self, grown: Grown) -> float:
        return 0.0
