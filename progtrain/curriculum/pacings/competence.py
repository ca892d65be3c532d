"""The share is the learner's competence: its rate of growth falls as the share grows."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require


@dataclass(frozen=True)
class Competence:
    """c(t) = (t · (1 − c0^p) + c0^p)^(1/p), with c0 the start and t the progress.

    Reference: Platanios et al. 2019 (arXiv 1903.09848), eq. 7; p=2 is eq. 8, p=1 is linear.
    """

    power: float = 2.0  # p

    def __post_init__(self) -> None:
        require(self.power > 0, "power", self.power, "a number > 0", "2 is the square root.")

    def share(self, start: float, progress: float) -> float:
        first = start**self.power
        return (progress * (1 - first) + first) ** (1 / self.power)
