"""A plain multi-layer perceptron: stem, `depth` equal blocks, head.

Shapes: x_B... (batch, *shape), h_BW (batch, width), logits_BK (batch, classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from progtrain.models.layers import activation_of, norm_1d, whole


class Block(nn.Module):
    """Linear, norm, activation; input and output have `width` units."""

    def __init__(self, width: int, norm: str, activation: str) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = norm_1d(norm, width)
        self.activation = activation_of(activation)

    def forward(self, h_BW: Tensor) -> Tensor:
        return self.activation(self.norm(self.linear(h_BW)))


class MLP(nn.Module):
    """`depth` counts hidden layers behind the stem."""

    def __init__(
        self,
        shape: Sequence[int],  # of one sample
        num_classes: int,
        width: int = 128,  # units
        depth: int = 2,  # blocks
        norm: str = "batch",  # none, batch, layer
        activation: str = "relu",  # relu, gelu, silu, tanh
    ) -> None:
        super().__init__()
        whole("width", width, 1)
        whole("depth", depth, 0)
        self.stem = nn.Linear(prod(shape), width)
        self.norm = norm_1d(norm, width)
        self.activation = activation_of(activation)
        self.blocks = nn.Sequential(*(Block(width, norm, activation) for _ in range(depth)))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h_BW = self.activation(self.norm(self.stem(x.flatten(1))))
        return self.head(self.blocks(h_BW))
