"""No mixing: every training sample by itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from progtrain.data.draws import Draws
from progtrain.data.sets import Sets


@dataclass(frozen=True)
class NoMix:
    """Changes nothing and costs nothing."""

    def check(self, sets: Sets) -> None:
        """Nothing to refuse."""

    def __call__(
        self, x: Tensor, y: Tensor, num_classes: int, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        return x, y
