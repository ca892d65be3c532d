"""Insert adapters: bottlenecks of a few units behind or beside modules of the host.

What: features go down to `rank` units, through a GELU and up again, and are added to what the
host's module computes. In front stands a norm of the host's kind, or none.

Equation: behind: y + α f(y) with y = M(x); beside: M(x) + α f(x);
f(x) = U gelu(D norm(x)) with D: features → rank.

Hyperparameters: modules, place; rank; silent, whether U starts at 0.

When it fails: where the new task needs more than a few directions of every feature. A rank above
the features would be no bottleneck and is refused; that is insert=branch.

Evidence: within 0.4 % of full fine-tuning on GLUE with 3.6 % of the parameters for each task, says
the paper, which freezes the host for good; here it trains on unless warmup=frozen_host.

Reference: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, arXiv 1902.00751.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.errors import GrowthError, require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.operators.insert import check_insert, fill, inserting
from progtrain.growth.sites import Site


@dataclass(frozen=True)
class InsertAdapter:
    """An adapter at every chosen module."""

    modules: str = "auto"
    place: str = "behind"
    rank: int = 4
    silent: bool = True
    shares = False

    def __post_init__(self) -> None:
        check_insert(self.modules, self.place)
        require(1 <= self.rank <= 1_000_000, "rank", self.rank, "a whole number, 1 to 1000000")

    @property
    def preserves(self) -> bool:
        return self.silent

    def propose(self, host: Host) -> Edit:
        return inserting(host, self.modules, self.place, "adapter", self._sizes)

    def _sizes(self, site: Site) -> dict[str, str | int]:
        most = min(site.features(self.place))
        if self.rank > most:
            raise GrowthError(
                f"insert.rank={self.rank} is no bottleneck for {site.module}, which has {most}"
                f" features. Use at most {most}, or insert=branch."
            )
        return {"norm": site.norm, "rank": self.rank}

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill(grown, self.silent, generator)

    def flops(self, grown: Grown) -> float:
        return 0.0
