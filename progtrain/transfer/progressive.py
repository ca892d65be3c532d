"""A teacher a stage: the networks before every growth teach the present one together.

Equation: loss = alpha · T² · Σᵢ wᵢ KL(teacherᵢ ‖ student at T) + (1 − alpha) · loss on labels.
When it fails: every teacher costs a forward a step and its weights in memory; old ones are weak.
Reference: several teachers with weights: You et al., KDD 2017; distillation: arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from progtrain.transfer.teaching import Teaching


@dataclass(frozen=True)
class Progressive:
    """A stack of teachers with declared weights, which are normalised over those there are."""

    alpha: float = 0.5  # share of the distillation loss
    temperature: float = 2.0
    weights: str | Sequence[float] = "equal"  # equal, recent (1, 1/2, …), or numbers, newest first
    most: int | None = None  # only the newest ones; None: all
    length: str | None = None  # how long each teaches; None: to the end
    device: str = "same"  # where teachers compute: same as the student, or cpu
    precision: str = "same"  # of their weights: same, bf16, fp16
    preserves = False

    def __post_init__(self) -> None:
        assert self.teaching  # which refuses what is no value

    @property
    def teaching(self) -> Teaching:
        return Teaching(
            self.alpha,
            self.temperature,
            self.weights,
            self.most,
            self.length,
            self.device,
            self.precision,
        )
