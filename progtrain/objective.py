"""What training minimises and evaluation counts: one target a sample, or one a position.

Classes are the last dimension of the logits: logits_BK with y_B, or logits_BTV with y_BT.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Mean over all targets, or their `sum`, or each of them (`none`)."""
    if logits.ndim > 2:
        logits, y = logits.flatten(0, -2), y.flatten()
    return F.cross_entropy(logits, y, reduction=reduction)


def sample_losses(logits: Tensor, y: Tensor) -> Tensor:
    """The loss of each sample (B,), the mean over its targets."""
    return cross_entropy(logits, y, "none").unflatten(0, (len(y), -1)).mean(1)


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """How many targets have the largest logit."""
    return (logits.argmax(-1) == y).sum()
