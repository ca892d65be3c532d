"""No augmentation: training images as they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from progtrain.data.draws import Draws
from progtrain.data.sets import Sets


@dataclass(frozen=True)
class NoAugment:
    """Changes nothing and costs nothing."""

    normalised = False

    def check(self, sets: Sets) -> None:
        """Nothing to refuse."""

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        return x
