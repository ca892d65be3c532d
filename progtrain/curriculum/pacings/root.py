"""The share grows fast at first, then slower."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require


@dataclass(frozen=True)
class Root:
    """start + (1 − start) · progress^exponent; Wu et al. 2021 (arXiv 2012.03107), table 2."""

    exponent: float = 0.5  # 0.5: the square root; 1: linear; above 1: slow at first

    def __post_init__(self) -> None:
        require(self.exponent > 0, "exponent", self.exponent, "a number > 0", "0.5 is the root.")

    def share(self, start: float, progress: float) -> float:
        return start + (1 - start) * progress**self.exponent
