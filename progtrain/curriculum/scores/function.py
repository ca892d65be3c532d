"""A score of the user's own: any function of the training data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from progtrain.errors import ConfigError, require
from progtrain.run import Run
from progtrain.setup import Setup


def spread(x: Tensor, y: Tensor, sign: float = -1.0) -> Tensor:
    """sign · standard deviation of a sample's values: with −1 high contrast is easy; an example.

    x (N, ...) are the raw training samples, y (N, ...) their targets.
    """
    return sign * x.double().flatten(1).std(1)


@dataclass(frozen=True)
class Function:
    """A function of all samples x (N, ...) and targets y (N, ...) to one number each (N,)."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        hint = "Give it `_target_: your.module.function` and `_partial_: true`."
        require(callable(self.function), "function", self.function, "callable", hint)

    def scores(self, run: Run, setup: Setup) -> Tensor:
        train = setup.batches.sets.train
        scores_N = self.function(train.held("curriculum/score=function"), train.y)
        if not torch.is_tensor(scores_N):  # pyright: ignore[reportUnnecessaryComparison]
            raise ConfigError(
                "curriculum.score.function must return a tensor with one number a training sample"
                f" ({len(train)},), got {type(scores_N).__name__}."
            )
        return scores_N
