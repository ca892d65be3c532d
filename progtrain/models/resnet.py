"""A residual network for small images (He et al., arXiv 1512.03385).

Entries that change shape stand apart from the blocks, so all blocks of a stage are equal and any
of them can be repeated. Shapes: x_BCHW (batch, channels, height, width), logits_BK.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from progtrain.models.cnn import ConvBlock, Stage
from progtrain.models.layers import image_channels, whole


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, hidden, "relu")
        self.conv = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.relu(x_BCHW + self.norm(self.conv(self.first(x_BCHW))))


class ResNet(nn.Module):
    """Channels are `width`, 2 × `width`, 4 × `width`, … over the stages."""

    def __init__(
        self,
        shape: Sequence[int],  # channels, height, width
        num_classes: int,
        width: int = 16,  # channels of the first stage
        depth: int = 2,  # residual blocks a stage
        stages: int = 3,
        expansion: float = 1.0,  # inner channels of a block over its outer ones
    ) -> None:
        super().__init__()
        whole("width", width, 1)
        whole("depth", depth, 0)
        whole("stages", stages, 1, 8)
        channels = [image_channels(shape), *(width * 2**i for i in range(stages))]
        built: list[nn.Module] = []
        for i, (before, now) in enumerate(pairwise(channels)):
            hidden = max(1, round(now * expansion))
            blocks = nn.Sequential(*(ResidualBlock(now, hidden) for _ in range(depth)))
            built.append(Stage(ConvBlock(before, now, "relu", stride=1 if i == 0 else 2), blocks))
        self.stages = nn.Sequential(*built)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.stages(x_BCHW).mean((2, 3)))
