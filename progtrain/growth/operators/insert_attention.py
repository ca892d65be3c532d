"""Insert attention: multi-head self-attention beside or behind modules of the host.

What: every position of a sequence, or of a feature map, reads all others, and the result is added
to what the host's module computes. In front stands a norm of the host's kind, or none.

Equation: behind: y + α f(y) with y = M(x); beside: M(x) + α f(x);
f(x) = O softmax(Q K^T / √D) V with Q, K, V linear in norm(x).

Hyperparameters: modules, place; heads; causal, whether a position is kept from seeing what comes
after it: auto asks the network by changing the second half of the probe's sequences; silent,
whether O starts at 0.

When it fails: where no dimension holds positions; with more than 4096 of them, as its cost grows
with their square. It knows no positions of its own: order must be in the features already.

Evidence: exact by test in float64; attention over feature maps beside convolutions is worth 1.3
points on ImageNet for a ResNet-50, says the reference.

Reference: Vaswani et al., arXiv 1706.03762; Bello et al., Attention Augmented Convolutional
Networks, arXiv 1904.09925.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from progtrain.errors import GrowthError, require
from progtrain.growth.causality import is_causal
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.operators.insert import check_insert, fill, inserting
from progtrain.growth.sites import Site

_MOST_POSITIONS = 4096


@dataclass(frozen=True)
class InsertAttention:
    """Attention at every chosen module."""

    modules: str = "auto"
    place: str = "behind"
    heads: int = 4
    causal: bool | str = "auto"
    silent: bool = True
    shares = False

    def __post_init__(self) -> None:
        check_insert(self.modules, self.place)
        require(1 <= self.heads <= 10_000, "heads", self.heads, "a whole number, 1 to 10000")
        known = isinstance(self.causal, bool) or self.causal == "auto"
        require(known, "causal", self.causal, "auto, true or false")

    @property
    def preserves(self) -> bool:
        return self.silent

    def propose(self, host: Host) -> Edit:
        hides = is_causal(host)
        if hides and self.causal is False:
            raise GrowthError(
                f"insert.causal=false would show the positions of this"
                f" {type(host.model).__name__} what comes after them, which it hides from them."
                " Use auto or true."
            )
        causal = hides or self.causal is True
        return inserting(
            host, self.modules, self.place, "attention", partial(self._sizes, causal=causal)
        )

    def _sizes(self, site: Site, causal: bool) -> dict[str, str | int | bool]:
        into, _ = site.features(self.place)
        if into % self.heads:
            fitting = [str(n) for n in range(1, min(into, 64) + 1) if into % n == 0]
            raise GrowthError(
                f"insert.heads={self.heads} does not divide the {into} features of {site.module}."
                f" Use one of {', '.join(fitting)}."
            )
        if site.positions == 0:
            raise GrowthError(
                f"insert=attention finds no positions in {site.module}: it returns {site.after}, a"
                " batch of features. Use insert=branch there, or other insert.modules."
            )
        if site.positions > _MOST_POSITIONS:
            raise GrowthError(
                f"insert=attention over the {site.positions:,} positions of {site.module} costs"
                f" their square; {_MOST_POSITIONS:,} is the most. Name modules with fewer by"
                " insert.modules."
            )
        return {"norm": site.norm, "heads": self.heads, "causal": causal}

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill(grown, self.silent, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0
