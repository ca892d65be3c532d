"""scikit-learn's digits: 1,797 grey images of 8×8 (UCI optical recognition of handwritten digits).

Embedded in the package, so the first command needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from progtrain.data.checks import check_share
from progtrain.data.sets import Normalise, Sets, split_off


@dataclass(frozen=True)
class Digits:
    """Split into training and validation; there is no official test set."""

    shape: Sequence[int] = (1, 8, 8)
    num_classes: int = 10
    validation: float = 0.2  # share of the samples
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_share("validation", self.validation)

    def load(self) -> Sets:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x = torch.as_tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
        y = torch.as_tensor(labels, dtype=torch.int64)
        train, validation = split_off(x, y, self.validation, self.split_seed)
        return Sets(train, validation, None, Normalise(16.0, (0.305,), (0.376,)))
