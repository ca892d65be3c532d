"""Cross entropy of the labels, smoothed or weighted by class.

Equation: lossₙ = −Σₖ wₖ ((1 − s) pₙₖ + s/K) log qₙₖ; the mean is Σₙ lossₙ / Σₙₖ pₙₖ wₖ, for whole
labels as for mixed ones. p are the targets, q the softmax of the logits, s `label_smoothing`.
References: label smoothing, Szegedy et al. 2016 (arXiv 1512.00567), section 7; `balanced` weights
N / (K · Nₖ), King & Zeng 2001 (Political Analysis 9).

Suffixes: N targets, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from progtrain.data.sets import Sets
from progtrain.errors import ConfigError, require
from progtrain.objective import Criterion, plain


@dataclass(frozen=True)
class CrossEntropy:
    """Plain by default."""

    label_smoothing: float = 0.0  # share of every label that is spread over all classes
    class_weights: str | Sequence[float] | None = None  # balanced, or one number a class

    def __post_init__(self) -> None:
        good = 0 <= self.label_smoothing < 1
        require(good, "label_smoothing", self.label_smoothing, "in [0, 1)", "Try 0.1.")
        weights = self.class_weights
        if isinstance(weights, str):
            good = weights == "balanced"
        elif weights is not None:
            good = all(math.isfinite(w) and w >= 0 for w in weights) and any(weights)
        allowed = "balanced, a list of numbers >= 0 (one a class, one of them above 0), or null"
        require(good, "class_weights", weights, allowed, "Try balanced.")

    def criterion(self, sets: Sets, num_classes: int, device: torch.device) -> Criterion:
        if not self.label_smoothing and self.class_weights is None:
            return plain
        weights = self._weights(sets, num_classes)
        return _Weighted(self.label_smoothing, None if weights is None else weights.to(device))

    def _weights(self, sets: Sets, num_classes: int) -> Tensor | None:
        if self.class_weights is None:
            return None
        if isinstance(self.class_weights, str):
            return _balanced(sets, num_classes)
        if len(self.class_weights) != num_classes:
            raise ConfigError(
                f"loss.class_weights has {len(self.class_weights)} numbers, and the data have"
                f" {num_classes} classes{_names(sets)}. Give one number a class, or"
                " loss.class_weights=balanced."
            )
        return torch.tensor([float(weight) for weight in self.class_weights])


def _balanced(sets: Sets, num_classes: int) -> Tensor:
    """N / (K · Nₖ): every class weighs the same in all, the mean weight of a target is 1."""
    y_N = sets.train.y.flatten().long().cpu()
    count_K = y_N.bincount(minlength=num_classes)
    if bool((count_K == 0).any()):
        missing = (count_K == 0).nonzero().flatten().tolist()
        few = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ConfigError(
            f"loss.class_weights=balanced: {len(missing)} of the {num_classes} classes have no"
            f" training sample ({few}), so no weight balances them. Give loss.class_weights one"
            " number a class, or change data.num_classes."
        )
    return (len(y_N) / (num_classes * count_K.double())).float()


def _names(sets: Sets) -> str:
    if not sets.classes:
        return ""
    few = ", ".join(sets.classes[:5]) + (", …" if len(sets.classes) > 5 else "")
    return f" ({few})"


@dataclass(frozen=True)
class _Weighted:
    """Cross entropy with smoothing and weights; classes that a head has beyond them weigh 1."""

    smoothing: float
    weights: Tensor | None  # of each class (K,)

    def __call__(self, logits_NK: Tensor, targets: Tensor, reduction: str) -> Tensor:
        logits_NK = logits_NK if logits_NK.element_size() >= 4 else logits_NK.float()
        weight_K = self._fitting(logits_NK)

        def reduced(reduction: str) -> Tensor:
            return F.cross_entropy(
                logits_NK,
                targets,
                weight_K,
                reduction=reduction,
                label_smoothing=self.smoothing,
            )

        if weight_K is None or reduction != "mean" or not targets.is_floating_point():
            return reduced(reduction)
        # torch divides by N here, and by the weights of the labels where they are whole
        return reduced("sum") / (targets @ weight_K.to(targets.dtype)).sum()

    def _fitting(self, logits_NK: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        weight_K = self.weights.to(logits_NK)
        more = logits_NK.shape[-1] - len(weight_K)
        return F.pad(weight_K, (0, more), value=1.0) if more else weight_K
