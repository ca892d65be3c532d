"""The first batches of a run, alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from progtrain.data.sets import Batches, Sets, Split


class InOrder(Batches):
    """The same batches in every epoch."""

    def _permutation(self, epoch: int) -> Tensor:
        return torch.arange(len(self.sets.train))


def first(batches: Batches, samples: int) -> Sets:
    """The data with only the training samples that a run sees first, in that order."""
    sets = batches.sets
    index = batches.indices(0, min(samples, len(sets.train)))
    columns = {name: column[index] for name, column in sets.columns.items()}
    train = picked(sets.train, index)
    return replace(sets, train=train, columns=columns, fingerprint=None)


def picked(split: Split, index: Tensor) -> Split:
    """The samples of a split at `index` (N,)."""
    here = index.to(split.x.device)
    source = None if split.source is None else split.source[index]
    return Split(split.x[here], split.y[here], source)


def head(split: Split, samples: int) -> Split:
    """The first samples of a split."""
    return picked(split, torch.arange(min(samples, len(split))))
