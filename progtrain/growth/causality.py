"""Whether a network lets a position see what comes after it."""

from __future__ import annotations

import torch

from progtrain.growth.grow import Host
from progtrain.growth.newborn import evaluate

_NOISE = 1e-3  # of how far the changed half moves: rounding


def is_causal(host: Host) -> bool:
    """Whether the outputs of a sequence's first half stay when its second half changes.

    Asked of the network itself, so it holds for masks, convolutions and recurrences alike; False
    where the output is not one for every position.
    """
    x_BT = host.probe.x
    before = evaluate(host.model, x_BT)
    if x_BT.ndim not in (2, 3) or before.ndim != 3 or before.shape[1] != x_BT.shape[1]:
        return False
    half = max(1, x_BT.shape[1] // 2)
    other_BT = torch.cat((x_BT[:, :half], x_BT[:, half:].roll(1, 0)), 1)
    after = evaluate(host.model, other_BT)
    moved_T = (after - before).abs().amax((0, 2))
    return float(moved_T[:half].max()) <= _NOISE * float(moved_T.max())
