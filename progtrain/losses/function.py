"""A loss of the user's own: any function of logits and targets to one number a target.

Suffixes: N targets, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from progtrain.data.sets import Sets
from progtrain.errors import ConfigError, require
from progtrain.objective import Criterion


def focal(logits_NK: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Σₖ pₖ (1 − qₖ)^gamma (−log qₖ) of each target (N,); Lin et al. 2017 (arXiv 1708.02002).

    `targets` are whole numbers y_N, or probabilities p_NK where samples have been mixed.
    """
    log_q_NK = F.log_softmax(logits_NK.float(), dim=-1)
    if not targets.is_floating_point():
        log_q_N = log_q_NK.gather(1, targets[:, None])[:, 0]
        return -((1 - log_q_N.exp()) ** gamma) * log_q_N
    return -(targets * (1 - log_q_NK.exp()) ** gamma * log_q_NK).sum(1)


@dataclass(frozen=True)
class Function:
    """The mean of `function(logits_NK, targets)` over the targets; it must give one number each."""

    function: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        hint = "Give it `_target_: your.module.function` and `_partial_: true`."
        require(callable(self.function), "function", self.function, "callable", hint)

    def criterion(self, sets: Sets, num_classes: int, device: torch.device) -> Criterion:
        return self._reduced

    def _reduced(self, logits_NK: Tensor, targets: Tensor, reduction: str) -> Tensor:
        each_N = self.function(logits_NK, targets)
        if each_N.shape != logits_NK.shape[:1]:
            raise ConfigError(
                f"loss.function must return one number a target ({len(logits_NK)},), got"
                f" {tuple(each_N.shape)}. Leave out its mean: progtrain takes it."
            )
        return each_N if reduction == "none" else getattr(each_N, reduction)()
