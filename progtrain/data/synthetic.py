"""Random images whose label a random linear map and a little noise decide; for smoke tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from progtrain.data.checks import check_share
from progtrain.data.sets import Normalise, Sets, split_off
from progtrain.errors import require


@dataclass(frozen=True)
class Synthetic:
    """`samples` standard normal images of `shape`; learnable, never perfectly."""

    shape: Sequence[int] = (3, 32, 32)
    num_classes: int = 4
    samples: int = 512
    validation: float = 0.25  # share of the samples
    split_seed: int = 0

    def __post_init__(self) -> None:
        require(self.num_classes >= 2, "num_classes", self.num_classes, "a whole number >= 2")
        require(self.samples >= 2, "samples", self.samples, "a whole number >= 2")
        check_share("validation", self.validation)

    def load(self) -> Sets:
        generator = torch.Generator().manual_seed(self.split_seed)
        x = torch.randn(self.samples, *self.shape, generator=generator)
        x_NF = x.flatten(1)
        teacher_FK = torch.randn(x_NF.shape[1], self.num_classes, generator=generator)
        noise_NK = torch.randn(self.samples, self.num_classes, generator=generator)
        logits_NK = x_NF @ teacher_FK + 0.5 * noise_NK
        y = logits_NK.argmax(1)
        best_N2 = logits_NK.topk(2, dim=1).values
        train, validation = split_off(x, y, self.validation, self.split_seed)
        channels = self.shape[0]
        normalise = Normalise(1.0, (0.0,) * channels, (1.0,) * channels)
        closeness_N = (best_N2[:, 1] - best_N2[:, 0])[train.source]  # of the second class
        return Sets(train, validation, None, normalise, {"closeness": closeness_N})
