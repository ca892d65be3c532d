"""The share grows evenly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """start + (1 − start) · progress; Wu et al. 2021 (arXiv 2012.03107), table 2."""

    def share(self, start: float, progress: float) -> float:
        return start + (1 - start) * progress
