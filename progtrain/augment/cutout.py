"""One square of every training image is blanked out.

Reference: Cutout, DeVries & Taylor 2017 (arXiv 1708.04552): the square's centre is any pixel, so
that squares at an edge lie partly outside; it is filled with the data set's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from progtrain.augment.images import sides
from progtrain.data.draws import Draws
from progtrain.data.sets import Sets
from progtrain.errors import ConfigError, require


@dataclass(frozen=True)
class Cutout:
    """A square of `size` pixels becomes 0 in the normalised image: the mean of the data."""

    size: int = 8  # pixels of the square's side

    normalised = True

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", self.size, "a whole number >= 1", "augment=none cuts none.")

    def check(self, sets: Sets) -> None:
        _, height, width = sides(sets, "augment=cutout")
        if self.size >= 2 * min(height, width):
            raise ConfigError(
                f"augment.cutout.size={self.size} would blank out images of {height}×{width} whole."
                f" Use augment.cutout.size={max(1, min(height, width) // 4)}."
            )

    def __call__(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        height, width = x_BCHW.shape[-2:]
        u_B2 = draws.uniform(2).to(x_BCHW.device, torch.float32, non_blocking=True)
        inside_BH, inside_BW = (
            self._inside(u_B2[:, k], side) for k, side in ((0, height), (1, width))
        )
        blank_BHW = inside_BH[:, :, None] & inside_BW[:, None, :]
        return x_BCHW.masked_fill(blank_BHW[:, None], 0.0)

    def _inside(self, u_B: Tensor, side: int) -> Tensor:
        """Which rows or columns lie in the square (B, side)."""
        first_B1 = (u_B * side).floor()[:, None] - self.size // 2
        place_S = torch.arange(side, device=u_B.device)
        return (place_S >= first_B1) & (place_S < first_B1 + self.size)
