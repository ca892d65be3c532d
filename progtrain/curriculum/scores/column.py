"""Scores that somebody has worked out before: a file, or a column of the data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from progtrain.data.sets import Sets
from progtrain.errors import ConfigError, did_you_mean, require
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Column:
    """One number a sample, the less the easier.

    A file has one for each training sample, or one for each sample of the data set before
    validation was split off, in the data set's order.
    """

    file: str | None = None  # .npy, or text with one number a line
    name: str | None = None  # a column that the data set brings along

    def __post_init__(self) -> None:
        one = (self.file is None) != (self.name is None)
        hint = "Try curriculum.score.file=difficulty.npy."
        require(one, "file and name", f"{self.file} and {self.name}", "one of the two", hint)

    def scores(self, run: Run, setup: Setup) -> Tensor:
        sets = setup.batches.sets
        if self.file is not None:
            return self._from_file(Path(self.file).expanduser(), sets)
        if self.name is None or self.name not in sets.columns:
            near = did_you_mean(str(self.name), sets.columns)
            known = ", ".join(sets.columns) or "none; use curriculum.score.file"
            raise ConfigError(
                f"curriculum.score.name={self.name}: the data set has no such column.{near} It has:"
                f" {known}."
            )
        return sets.columns[self.name]

    def _from_file(self, path: Path, sets: Sets) -> Tensor:
        scores_N, source = _read(path), sets.train.source
        if len(scores_N) == len(sets.train):
            return scores_N
        both = len(sets.train) + len(sets.validation)
        if source is not None and len(scores_N) == both:
            return scores_N[source]
        allowed = f"{len(sets.train)} (training samples)"
        if source is not None:
            allowed += f" or {both} (with those of validation)"
        raise ConfigError(
            f"curriculum.score.file={path} has {len(scores_N)} numbers; it must have {allowed}."
        )


def _read(path: Path) -> Tensor:
    try:
        numbers = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",")
        return torch.as_tensor(np.asarray(numbers, dtype=np.float64).reshape(-1))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"curriculum.score.file={path} (looked from {Path.cwd()}) cannot be read: {error}. It"
            " takes a .npy file, or a text with one number a line."
        ) from None
