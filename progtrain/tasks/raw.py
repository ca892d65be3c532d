"""Samples from files, as the data set of a run would have held them before normalising.

Images are turned as their EXIF says, made grey or RGB, resized so that the shorter side fits and
cut at the centre. `.npy` and `.safetensors` hold one sample or many, in the values of the data set.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from progtrain.data.sets import Normalise
from progtrain.errors import ConfigError, did_you_mean
from progtrain.inputs import Inputs

ARRAYS = (".npy", ".safetensors")
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Sample:
    """One input, or why there is none."""

    name: str  # its path; of one of several in an array also its place
    x: Tensor | None  # raw, of the network's shape
    unreadable: str = ""


def files(given: str) -> list[Path]:
    """What `input` names, in the order of names; a folder's hidden and other files are left out.

    Raises `ConfigError` where that is nothing.
    """
    place = Path(given).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        readable = (*ARRAYS, *Image.registered_extensions())
        inside = [f for f in place.rglob("*") if f.is_file() and f.suffix.lower() in readable]
        found = [f for f in inside if not any(p[0] == "." for p in f.relative_to(place).parts)]
        told = f"input={given} is a folder without images or arrays"
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True)]
        found = [file for file in found if file.is_file()]
        siblings = [f.name for f in place.parent.iterdir()] if place.parent.is_dir() else []
        near = did_you_mean(place.name, siblings)
        told = f"Nothing found at input={given} (looked from {Path.cwd()}).{near}"
    if not found:
        raise ConfigError(
            f"{told.rstrip('.')}. It takes a file, a folder or a pattern: 'cats/*.png'."
        )
    return sorted(found)


def samples(found: Iterable[Path], inputs: Inputs) -> Iterator[Sample]:
    """Every sample of every file; one that cannot be read says why."""
    for file in found:
        try:
            if file.suffix.lower() in ARRAYS:
                yield from _from_array(file, inputs.shape)
            else:
                yield Sample(str(file), _from_image(file, inputs))
        except (OSError, ValueError, SyntaxError, SafetensorError) as error:
            told = str(error) or type(error).__name__
            yield Sample(str(file), None, told.splitlines()[0])


def check_images(inputs: Inputs) -> None:
    """Raise `ConfigError` for a network that reads no images."""
    if len(inputs.shape) != 3 or inputs.shape[0] not in _MODES:
        sized = "×".join(map(str, inputs.shape))
        raise ConfigError(
            f"The network reads samples of {sized}; images have 1 or 3 channels. Give arrays"
            " (.npy, .safetensors)."
        )


def _from_image(file: Path, inputs: Inputs) -> Tensor:
    """uint8 (C, H, W), or floats where the data set's values were no pixels."""
    check_images(inputs)
    channels, *size = inputs.shape
    with Image.open(file) as opened:
        image = _eight_bits(ImageOps.exif_transpose(opened)).convert(_MODES[channels])
    pixels_CHW = torch.from_numpy(np.array(image)).reshape(*reversed(image.size), channels)
    pixels_CHW = pixels_CHW.permute(2, 0, 1).contiguous()
    if list(pixels_CHW.shape[1:]) != size:
        pixels_CHW = _fitted(pixels_CHW, size)
    scale = inputs.normalise.scale if isinstance(inputs.normalise, Normalise) else 255.0
    return pixels_CHW if scale == 255 else pixels_CHW * (scale / 255)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow would cut the values of a 16-bit grey image at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.array(image) // 256).clip(0, 255).astype(np.uint8))


def _fitted(pixels_CHW: Tensor, size: list[int]) -> Tensor:
    """The largest part in the middle that has the wanted proportions, at the wanted size."""
    height, width = pixels_CHW.shape[1:]
    factor = max(size[0] / height, size[1] / width)
    near = [max(size[0], round(height * factor)), max(size[1], round(width * factor))]
    return transforms.center_crop(transforms.resize(pixels_CHW, near, antialias=True), size)


def _from_array(file: Path, shape: tuple[int, ...]) -> Iterator[Sample]:
    x = _array(file)
    if tuple(x.shape) == shape:
        yield Sample(str(file), x)
    elif tuple(x.shape[1:]) == shape:
        yield from (Sample(f"{file}[{index}]", each) for index, each in enumerate(x))
    else:
        sized = ["×".join(map(str, each)) or "one number" for each in (tuple(x.shape), shape)]
        raise ValueError(f"its shape is {sized[0]}; the network reads {sized[1]}, or many of them")


def _array(file: Path) -> Tensor:
    if file.suffix.lower() == ".npy":
        values: Any = np.load(file, allow_pickle=False)
        return torch.from_numpy(values)
    held = safetensors.torch.load_file(file)
    if len(held) != 1 and "x" not in held:
        raise ValueError(f"it holds {', '.join(held) or 'nothing'}; name the samples x")
    return held["x"] if "x" in held else next(iter(held.values()))
