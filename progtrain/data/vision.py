"""torchvision's data sets of small images, read whole into memory as uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from progtrain.data.checks import check_share
from progtrain.data.sets import Normalise, Sets, Split, split_off
from progtrain.errors import ConfigError, require

Reader = Callable[..., Any]


@dataclass(frozen=True)
class Vision:
    """A class of `torchvision.datasets`; its training part is split, its test part is the test."""

    dataset: Reader  # such as torchvision.datasets.CIFAR10
    name: str  # as a user knows it
    root: str
    shape: Sequence[int]
    num_classes: int
    mean: Sequence[float]  # of each channel, pixels in [0, 1]
    std: Sequence[float]
    download: bool = True
    validation: float = 0.1  # share of the training part
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_share("validation", self.validation)
        for name in ("mean", "std"):
            value, channels = getattr(self, name), self.shape[0]
            good = len(value) == channels
            require(good, name, list(value), f"{channels} numbers, one a channel of data.shape")

    def load(self) -> Sets:
        x, y, classes = self._read(True)
        train, validation = split_off(x, y, self.validation, self.split_seed)
        normalise = Normalise(255.0, tuple(self.mean), tuple(self.std))
        test = Split(*self._read(False)[:2])
        return Sets(train, validation, test, normalise, classes=classes)

    def _read(self, train: bool) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
        """Images, labels, and the names of the classes."""
        root = Path(self.root).expanduser()
        try:
            data = self.dataset(root=root, train=train, download=self.download)
        except (RuntimeError, OSError) as error:
            raise ConfigError(
                f"Data set {self.name} not found in data.root={root}, and downloading it"
                f"{' failed' if self.download else ' is off (data.download=false)'}."
                " Set data.root to a folder that torchvision has filled, or try where there is a"
                f" network. ({type(error).__name__}: {error})"
            ) from None
        x = torch.as_tensor(data.data)
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
        y = torch.as_tensor(data.targets, dtype=torch.int64)
        return x, y, tuple(map(str, getattr(data, "classes", ())))
