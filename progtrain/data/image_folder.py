"""Images of the user's own in folders, one a class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from progtrain.data.folders import Folders, Listed, read_folders
from progtrain.data.loader import Loader
from progtrain.data.pictures import Pictures, centre_crop, mirrored, random_crop
from progtrain.data.sets import Normalise, Sets, Split, mixed
from progtrain.errors import ConfigError, require

_COLOUR = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
_GREY = (0.449,), (0.226,)
_HELD = 2**30  # bytes up to which cache=auto keeps decoded images
_SAMPLED = 64  # files by which their size is estimated
_CHUNK = 256


@dataclass(frozen=True)
class ImageFolder:
    """Images as uint8 of one size: read by workers, or held in memory.

    With `crop=random` training sees random parts of images; with `crop=centre` and `flip=0` it sees
    them as evaluation does, and then a cached set is one tensor, which may live on the device.
    """

    root: str
    size: int = 64
    channels: int = 3
    shape: Sequence[int] = (3, 64, 64)
    num_classes: int = 2
    crop: str = "random"  # of training images: random, or centre
    scale: Sequence[float] = (0.35, 1.0)  # smallest and largest share of the area of random crops
    flip: float = 0.5  # probability of a mirror image
    centre: float = 1.0  # share of the shorter side that evaluation sees
    mean: Sequence[float] | None = None  # of each channel, pixels in [0, 1]
    std: Sequence[float] | None = None
    validation: float = 0.1  # share of each class, where no val/ is given
    test: float = 0.0  # share of each class, where no train/ is given
    split_seed: int = 0
    cache: bool | str = "auto"  # hold decoded images in memory
    workers: int | None = None  # processes that read; 0: none
    prefetch: int = 2  # batches that each worker reads ahead
    timeout: float = 120.0  # seconds without a batch after which workers count as stuck

    def __post_init__(self) -> None:
        good = 1 <= self.size <= 8192
        require(good, "size", self.size, "a whole number of pixels from 1 to 8192", "Try 64.")
        require(self.channels in (1, 3), "channels", self.channels, "3 (colours) or 1 (grey)")
        shape = [self.channels, self.size, self.size]
        hint = "Set data.size and data.channels instead."
        require(list(self.shape) == shape, "shape", list(self.shape), f"{shape}", hint)
        require(self.num_classes >= 2, "num_classes", self.num_classes, "a whole number >= 2")
        require(self.crop in ("random", "centre"), "crop", self.crop, "random or centre")
        good = len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] <= 1
        allowed = "two shares of the area, 0 < smallest <= largest <= 1"
        require(good, "scale", list(self.scale), allowed, "Try [0.35,1].")
        require(0 <= self.flip <= 1, "flip", self.flip, "a probability in [0, 1]")
        require(0 < self.centre <= 1, "centre", self.centre, "a share in (0, 1]", "Try 0.875.")
        for name in ("mean", "std"):
            value = getattr(self, name)
            good = value is None or len(value) == self.channels
            require(good, name, value, f"{self.channels} numbers (one a channel), or null")
        require(self.std is None or all(s > 0 for s in self.std), "std", self.std, "above 0")
        require(0 < self.validation < 1, "validation", self.validation, "a share in (0, 1)")
        good = 0 <= self.test < 1 - self.validation
        allowed = f"a share in [0, {1 - self.validation:g}), which leaves some to train on"
        require(good, "test", self.test, allowed)
        good = self.cache in (True, False, "auto")
        require(good, "cache", self.cache, "true, false or auto")
        cores = os.cpu_count() or 1
        most = max(16, 2 * cores)
        good = self.workers is None or 0 <= self.workers <= most
        allowed = f"a whole number from 0 to {most} here ({cores} cores), or null"
        require(good, "workers", self.workers, allowed, "0 reads in the process that trains.")
        good = 1 <= self.prefetch <= 100
        require(good, "prefetch", self.prefetch, "a whole number from 1 to 100")
        require(self.timeout > 0, "timeout", self.timeout, "a number of seconds above 0")

    def load(self) -> Sets:
        found = read_folders(self.root)
        parts = self._parts(found)
        mean, std = _COLOUR if self.channels == 3 else _GREY
        normalise = Normalise(255.0, tuple(self.mean or mean), tuple(self.std or std))
        splits = {name: self._split(name, *part) for name, part in parts.items()}
        return Sets(
            splits["train"],
            splits["validation"],
            splits.get("test"),
            normalise,
            classes=found.classes,
            fingerprint=_identity(Path(self.root).expanduser(), parts["train"][0]),
        )

    def _parts(self, found: Folders) -> dict[str, tuple[Listed, Tensor]]:
        """Files of each split, and their places in what was read."""
        shares = {"validation": self.validation} if found.validation is None else {}
        if not found.given and self.test:
            shares["test"] = self.test
        parts = divided(found.train, shares, self.split_seed)
        for name, listed in (("validation", found.validation), ("test", found.test)):
            if listed is not None:
                parts[name] = listed, torch.arange(len(listed))
        for name, (listed, _) in parts.items():
            if not len(listed):
                raise ConfigError(
                    f"data.root={self.root}: the {name} split has 0 samples. Add images, or change"
                    f" data.{name if name != 'train' else 'validation'}."
                )
        return parts

    def _split(self, name: str, listed: Listed, source: Tensor) -> Split:
        y_N = torch.tensor(listed.labels)
        pictures = Pictures(name, listed.files, self.channels, *self._transforms(name))
        still = pictures.varied is None
        if self._is_held(pictures, still):
            if still:
                chunks = range(0, len(listed), _CHUNK)
                x = [_whole(pictures, range(i, min(i + _CHUNK, len(listed)))) for i in chunks]
                return Split(torch.cat(x), y_N, source)
            pictures = pictures.kept()
        shape = (len(listed), self.channels, self.size, self.size)
        x = torch.empty(shape, dtype=torch.uint8, device="meta")
        workers = min(os.cpu_count() or 1, 4) if self.workers is None else self.workers
        loader = Loader(pictures, workers, self.prefetch, self.timeout)
        return Split(x, y_N, source, loader)

    def _transforms(self, name: str):
        plain = centre_crop(self.size, self.centre)
        if name != "train":
            return plain, None
        if self.crop == "random":
            return plain, random_crop(self.size, self.scale, self.flip)
        return plain, mirrored(plain, self.flip) if self.flip else None

    def _is_held(self, pictures: Pictures, still: bool) -> bool:
        if isinstance(self.cache, bool):
            return self.cache
        if still:
            return len(pictures) * self.channels * self.size**2 <= _HELD
        return pictures.num_bytes(_SAMPLED) <= _HELD


def divided(
    listed: Listed, shares: dict[str, float], seed: int
) -> dict[str, tuple[Listed, Tensor]]:
    """A seeded share of every class for each name, the rest as `train`; with their indices."""
    labels = torch.tensor(listed.labels)
    taken: dict[str, list[Tensor]] = {name: [] for name in ("train", *shares)}
    for label in range(int(labels.max()) + 1):
        own = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(mixed(seed, label))
        own = own[torch.randperm(len(own), generator=generator)]
        for name, share in shares.items():
            count = round(len(labels[labels == label]) * share)
            taken[name].append(own[:count])
            own = own[count:]
        taken["train"].append(own)
    parts: dict[str, tuple[Listed, Tensor]] = {}
    for name, each in taken.items():
        index = torch.cat(each).sort().values
        files = tuple(listed.files[i] for i in index.tolist())
        parts[name] = Listed(files, tuple(labels[index].tolist())), index
    return parts


def _whole(pictures: Pictures, index: range) -> Tensor:
    got = pictures.__getitems__([(i, None) for i in index])
    if not isinstance(got, Tensor):
        raise got
    return got


def _identity(root: Path, listed: Listed) -> str:
    """SHA-256 of names, sizes in bytes and labels: what stands for the pixels."""
    digest = hashlib.sha256()
    for file, label in zip(listed.files, listed.labels, strict=True):
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0{label}\n".encode())
    return digest.hexdigest()
