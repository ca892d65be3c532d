"""Insert residual branches: a small network beside or behind modules of the host.

What: a norm, a layer, a GELU and a layer, at every position alike (1×1 convolutions on feature
maps), are added to what the host's module computes. The norm is of the kind that the host has over
the same features, or none, so that they can still grow wider exactly.

Equation: behind: y + α f(y) with y = M(x); beside: M(x) + α f(x); f(x) = W2 gelu(W1 norm(x)).

Hyperparameters: modules, place; factor or size, the units of W1; silent, whether W2 starts at 0.

When it fails: a module that returns no single tensor, or whose weights the network reads without
calling it. Beside needs positions to stay. Under silent=true W1 has no gradient in the first step.
Behind a ReLU (auto stays in front of it) it keeps a stack from being deepened exactly later on.

Evidence: exact by test in float64 on every built-in model and three of torchvision's.

Reference: He et al., Identity Mappings in Deep Residual Networks, arXiv 1603.05027; Goyal et al.,
arXiv 1706.02677 (branches that start at zero).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.operators.insert import check_insert, fill, inserting
from progtrain.growth.sites import Site


@dataclass(frozen=True)
class InsertBranch:
    """A branch at every chosen module."""

    modules: str = "auto"
    place: str = "behind"
    factor: float = 1.0  # hidden units over the features it reads
    size: int | None = None  # hidden units; null: by the factor
    silent: bool = True
    shares = False

    def __post_init__(self) -> None:
        check_insert(self.modules, self.place)
        require(0 < self.factor <= 64, "factor", self.factor, "in (0, 64]")
        fits = self.size is None or 1 <= self.size <= 1_000_000
        require(fits, "size", self.size, "a whole number, 1 to 1000000, or null for the factor")

    @property
    def preserves(self) -> bool:
        return self.silent

    def propose(self, host: Host) -> Edit:
        return inserting(host, self.modules, self.place, "branch", self._sizes)

    def _sizes(self, site: Site) -> dict[str, str | int]:
        into, _ = site.features(self.place)
        return {"norm": site.norm, "hidden": self.size or max(1, round(self.factor * into))}

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill(grown, self.silent, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0
