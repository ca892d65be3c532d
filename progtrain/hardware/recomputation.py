"""Activation checkpointing: blocks keep their inputs and compute the rest again for the backward.

Chen et al., Training Deep Nets with Sublinear Memory Cost (2016), arXiv:1604.06174; by
`torch.utils.checkpoint`, whose second forward draws the same random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from progtrain.errors import ConfigError
from progtrain.flops import count_training, counted
from progtrain.hardware.blocks import Forward, stand_in
from progtrain.hardware.norms import normalises


def recomputed(forward: Forward) -> Forward:
    """The same, of which only what goes in is kept."""
    return partial(checkpoint, forward, use_reentrant=False)


def refuse_statistics(model: nn.Module) -> None:
    """Raise `ConfigError` for a network that would count every batch twice."""
    if normalises(model):
        raise ConfigError(
            "hardware.activation_checkpointing=true runs every block twice a step, and a batch norm"
            " would count its batch twice. Use false, or a network with layer norms, such as"
            " model=gpt or model=vit."
        )


def recomputed_flops(model: nn.Module, x: Tensor, frozen: Sequence[str] = ()) -> float:
    """FLOPs of one training sample that are computed a second time; like `training_flops`."""
    return counted(model, x, _count_again, frozen)


def _count_again(model: nn.Module, x: Tensor) -> float:
    once = count_training(model, x)
    stand_in(model, lambda kind: recomputed(kind.forward))
    return count_training(model, x) - once
