"""Stores the best checkpoints of a run, beside the newest ones, under readable names.

    checkpoints/best/epoch=12-val_accuracy=0.974/     as any step directory: manifest, tensors, JSON

They are written as all are (write.py). One goes when it is not among the best any more, and never
because it is old.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from progtrain.checkpoint.prune import exists, remove, sweep, writable
from progtrain.checkpoint.write import write_as
from progtrain.run import Json

BEST = "best"  # in the directory of checkpoints
NAME = re.compile(r"epoch=[0-9.e+-]+-[A-Za-z0-9_.-]+=[0-9.e+-]+(-step=[0-9]+)?")


def write_best(
    folder: Path,
    name: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Json],
    kept: Collection[str],
) -> Path:
    """Save a checkpoint as `name` in `folder`/best, and remove what is not in `kept` any more.

    Raises `EnvironmentProblem` if the disk does not allow it; what had been saved before stays.
    """
    assert NAME.fullmatch(name), name
    best = folder / BEST
    final = write_as(best, name, step, tensors, documents)
    sweep(best)
    with writable(f"{final} is saved, but one that is not among the best could not be removed"):
        for other in sorted(os.listdir(best)):
            if other not in kept and NAME.fullmatch(other) and exists(best / other):
                remove(best / other)
    return final
