"""What compresses well is easy: bytes of a sample behind zlib."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from progtrain.errors import require
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Compression:
    """Size of a compressed sample: for texts in windows of one length, where none is shorter.

    The sample is taken raw (bytes of a text, pixels), before it is normalised.
    """

    level: int = 9  # of zlib, 1 (fast) to 9 (small)

    def __post_init__(self) -> None:
        require(1 <= self.level <= 9, "level", self.level, "a whole number from 1 to 9")

    def scores(self, run: Run, setup: Setup) -> Tensor:
        x = setup.batches.sets.train.held("curriculum/score=compression").cpu()
        sizes = [len(zlib.compress(sample.numpy().tobytes(), self.level)) for sample in x]
        return torch.tensor(sizes)
