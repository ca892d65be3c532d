"""What training minimises and evaluation counts: one target a sample, or one a position.

Classes are the last dimension of the logits: logits_BK with y_B, or logits_BTV with y_BT. Targets
are whole numbers; where samples have been mixed they are probabilities p_BK.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

# (logits_NK, targets y_N or p_NK, reduction): `mean` a number, `none` one a target (N,), `sum`
Criterion = Callable[[Tensor, Tensor, str], Tensor]


def plain(logits_NK: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross entropy and nothing else, by which runs are compared whatever they minimise."""
    return F.cross_entropy(logits_NK, targets, reduction=reduction)


def measured(criterion: Criterion, logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """What a criterion says of all targets, or of each (`none`), positions side by side.

    Probabilities over fewer classes than a head has are 0 for the rest.
    """
    soft = y.is_floating_point()
    if logits.ndim > 2:
        logits, y = logits.flatten(0, -2), y.flatten(0, -2) if soft else y.flatten()
    if soft and y.shape[-1] < logits.shape[-1]:
        y = F.pad(y, (0, logits.shape[-1] - y.shape[-1]))
    return criterion(logits, y, reduction)


def cross_entropy(logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Mean over all targets, or their `sum`, or each of them (`none`)."""
    return measured(plain, logits, y, reduction)


def sample_losses(logits: Tensor, y: Tensor, criterion: Criterion = plain) -> Tensor:
    """The loss of each sample (B,), the mean over its targets."""
    return measured(criterion, logits, y, "none").unflatten(0, (len(y), -1)).mean(1)


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """How many targets have the largest logit."""
    return (logits.argmax(-1) == y).sum()
