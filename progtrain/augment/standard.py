"""Random crop out of the reflected image, and a mirror image for every second one.

Both are one gather over the batch: output pixel (i, j) of a sample is pixel (i + dy, j + dx) of the
image continued by reflection, columns in reverse where it is mirrored. Works on any type of pixel.

Reference: pad and crop, flip as in He et al. 2016 (arXiv 1512.03385), section 4.2; reflection in
place of zeros as in Zagoruyko & Komodakis 2016 (arXiv 1605.07146).
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
class Standard:
    """Shift by up to `padding` pixels each way, mirror with probability `flip`."""

    padding: int = 4  # pixels by which images are continued on every side; 0: no crop
    flip: float = 0.5  # probability of a mirror image

    normalised = False

    def __post_init__(self) -> None:
        good = 0 <= self.padding <= 1024
        require(good, "padding", self.padding, "a whole number from 0 to 1024", "Try 4.")
        require(0 <= self.flip <= 1, "flip", self.flip, "a probability in [0, 1]", "Try 0.5.")

    def check(self, sets: Sets) -> None:
        _, height, width = sides(sets, "augment=standard")
        most = min(height, width) - 1
        if self.padding > most:
            raise ConfigError(
                f"augment.standard.padding={self.padding}: images of {height}×{width} can be"
                f" reflected by {most} pixels at most. Use augment.standard.padding={most} or less."
            )

    def __call__(self, x_BCHW: Tensor, draws: Draws) -> Tensor:
        _, channels, height, width = x_BCHW.shape
        u_B3 = draws.uniform(3)
        dy_B, dx_B = ((u_B3[:, k] * (2 * self.padding + 1)).long() - self.padding for k in (0, 1))
        mirrored_B1 = (u_B3[:, 2] < self.flip)[:, None]
        row_BH = _reflected(torch.arange(height) + dy_B[:, None], height)
        column_BW = torch.arange(width).expand(len(u_B3), width)
        column_BW = torch.where(mirrored_B1, width - 1 - column_BW, column_BW)
        column_BW = _reflected(column_BW + dx_B[:, None], width)
        moved_B2 = torch.cat([row_BH, column_BW], 1).to(x_BCHW.device, non_blocking=True)
        row_BH, column_BW = moved_B2[:, :height], moved_B2[:, height:]
        pixel_B1P = (row_BH[:, :, None] * width + column_BW[:, None, :]).flatten(1)[:, None]
        flat_BCP = x_BCHW.flatten(2)
        return flat_BCP.gather(2, pixel_B1P.expand(-1, channels, -1)).view_as(x_BCHW)


def _reflected(place: Tensor, size: int) -> Tensor:
    """Places outside of [0, size) as those that lie there in a mirror at the edge."""
    place = place.abs()
    return torch.where(place >= size, 2 * (size - 1) - place, place)
