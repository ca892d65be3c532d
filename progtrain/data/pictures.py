"""Image files as samples: reads them, brings them to one size, varies those that are to train.

What is random is seeded for each sample, so its pixels depend on no reader and on no order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as pixels

from progtrain.data.draws import seeded
from progtrain.data.sets import Wanted
from progtrain.errors import ConfigError, EnvironmentProblem, ProgtrainError

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class Pictures:
    """Files of a split, as uint8 (channels, size, size) each."""

    name: str  # of the split
    files: tuple[Path, ...]
    channels: int  # 3: colours, 1: grey
    plain: Transform  # what evaluation, the probe and scores see
    varied: Transform | None = None  # what training sees; None: the same
    held: tuple[Any, ...] | None = None  # decoded pixels (height, width, channels), where kept

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, wanted: Wanted) -> Tensor | ProgtrainError:
        """A batch; what is wrong with a file is returned, as a worker cannot raise it whole."""
        try:
            return torch.stack([self._sample(index, seed) for index, seed in wanted])
        except ProgtrainError as error:
            return error

    def _sample(self, index: int, seed: int | None) -> Tensor:
        try:
            image = self._image(index)
            if seed is None or self.varied is None:
                image = self.plain(image)
            else:
                with seeded(seed):
                    image = self.varied(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._unreadable(index, error) from None
        return pixels.pil_to_tensor(image)

    def _image(self, index: int) -> Image.Image:
        if self.held is None:
            return decoded(self.files[index], self.channels)
        kept_HWC = self.held[index]
        return Image.fromarray(kept_HWC)

    def kept(self) -> Pictures:
        """The same with all files decoded once and held in memory."""
        held: list[Any] = []
        for index, file in enumerate(self.files):
            try:
                held.append(np.asarray(decoded(file, self.channels)))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise self._unreadable(index, error) from None
        return Pictures(self.name, self.files, self.channels, self.plain, self.varied, tuple(held))

    def num_bytes(self, sampled: int) -> float:
        """Bytes of all images when decoded, estimated by some of them."""
        some = range(0, len(self.files), max(1, len(self.files) // sampled))
        area = 0
        for index in some:
            try:
                with Image.open(self.files[index]) as opened:
                    area += opened.width * opened.height
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise self._unreadable(index, error) from None
        return area / len(some) * len(self.files) * self.channels

    def _unreadable(self, index: int, error: Exception) -> ProgtrainError:
        told = f"{self.name} sample {index} cannot be read: {self.files[index]}"
        if isinstance(error, FileNotFoundError):
            return EnvironmentProblem(f"{told} is not there any more. The data have changed.")
        if isinstance(error, OSError) and error.errno is not None:
            return EnvironmentProblem(f"{told}: {error.strerror}.")
        reason = str(error).removesuffix(".")
        return ConfigError(
            f"{told} is no image or is damaged ({reason}). Replace the file, or move it away."
        )


def decoded(file: Path, channels: int) -> Image.Image:
    """The upright image in colours or grey; what is transparent becomes white."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB" if channels == 3 else "L")


def centre_crop(size: int, share: float) -> Transform:
    """The square in the middle, `share` of the shorter side, as size×size pixels."""
    return v2.Compose([v2.Resize(max(size, round(size / share))), v2.CenterCrop(size)])


def random_crop(size: int, scale: Sequence[float], flip: float) -> Transform:
    """A random part of the image, as size×size pixels, mirrored with probability `flip`; as in
    Szegedy et al. 2015 (arXiv 1409.4842), section 6."""
    crop = v2.RandomResizedCrop(size, scale=(scale[0], scale[1]))
    return v2.Compose([crop, v2.RandomHorizontalFlip(flip)])


def mirrored(plain: Transform, flip: float) -> Transform:
    return v2.Compose([plain, v2.RandomHorizontalFlip(flip)])
