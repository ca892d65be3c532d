"""A plain convolutional network after VGG (Simonyan & Zisserman, arXiv 1409.1556) with batch norm.

Stages of equal blocks; between stages a strided convolution halves the image and doubles the
channels. Shapes: x_BCHW (batch, channels, height, width), logits_BK (batch, classes).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from progtrain.models.layers import activation_of, image_channels, whole


class ConvBlock(nn.Module):
    """3×3 convolution, batch norm, activation."""

    def __init__(self, in_channels: int, channels: int, activation: str, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.activation = activation_of(activation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x_BCHW)))


class Stage(nn.Module):
    """An entry that changes shape, then `depth` equal blocks."""

    def __init__(self, entry: nn.Module, blocks: nn.Sequential) -> None:
        super().__init__()
        self.entry = entry
        self.blocks = blocks

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.blocks(self.entry(x_BCHW))


class CNN(nn.Module):
    """Channels are `width`, 2 × `width`, 4 × `width`, … over the stages."""

    def __init__(
        self,
        shape: Sequence[int],  # channels, height, width
        num_classes: int,
        width: int = 32,  # channels of the first stage
        depth: int = 1,  # blocks a stage behind its entry
        stages: int = 2,
        dropout: float = 0.0,  # before the head
        activation: str = "relu",  # relu, gelu, silu, tanh
    ) -> None:
        super().__init__()
        whole("width", width, 1)
        whole("depth", depth, 0)
        whole("stages", stages, 1, 8)
        channels = [image_channels(shape), *(width * 2**i for i in range(stages))]
        self.stages = nn.Sequential(
            *(
                Stage(
                    ConvBlock(channels[i], channels[i + 1], activation, stride=1 if i == 0 else 2),
                    nn.Sequential(
                        *(
                            ConvBlock(channels[i + 1], channels[i + 1], activation)
                            for _ in range(depth)
                        )
                    ),
                )
                for i in range(stages)
            )
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BC = self.stages(x_BCHW).mean((2, 3))
        return self.head(self.dropout(h_BC))
