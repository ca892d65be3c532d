"""The share grows in equal steps."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.errors import require


@dataclass(frozen=True)
class Step:
    """start + (1 − start) · k / steps, k steps being over; the last one brings all samples.

    With one step it is the step function of Wu et al. 2021 (arXiv 2012.03107), table 2: the easiest
    share until the end of the length.
    """

    steps: int = 4

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "a whole number >= 1")

    def share(self, start: float, progress: float) -> float:
        return start + (1 - start) * int(progress * self.steps + 1e-9) / self.steps
