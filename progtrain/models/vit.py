"""A vision transformer (Dosovitskiy et al., arXiv 2010.11929): patches as words, a class token.

Shapes: x_BCHW (batch, channels, height, width), h_BTW (batch, 1 + patches, width), logits_BK.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.models.layers import image_channels, whole
from progtrain.models.transformer import EMBEDDING_STD, BlockSettings, blocks_of, norm_of


class ViT(nn.Module):
    """Square patches, `depth` blocks, one head on the class token."""

    def __init__(
        self,
        shape: Sequence[int],  # channels, height, width
        num_classes: int,
        patch: int = 2,  # side of a patch; it divides height and width
        width: int = 64,  # of the residual stream
        depth: int = 4,  # blocks
        heads: int = 4,
        hidden: int | None = None,  # units of each MLP; null: 4 × width
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels = image_channels(shape)
        whole("patch", patch, 1)
        rows, columns = (side // patch for side in shape[1:])
        fits = (rows * patch, columns * patch) == tuple(shape[1:])
        sides = [n for n in range(1, min(shape[1:]) + 1) if not any(s % n for s in shape[1:])]
        hint = f"Try one of {', '.join(map(str, sides))}."
        allowed = f"a divisor of the image's {shape[1]} × {shape[2]}"
        require(fits, "patch", patch, allowed, hint)
        settings = BlockSettings(width, depth, heads, hidden=hidden, dropout=dropout)
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + rows * columns, width))
        nn.init.normal_(self.positions, std=EMBEDDING_STD)
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks_of(settings)
        self.norm = norm_of(settings)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BPW = self.patches(x_BCHW).flatten(2).transpose(1, 2)
        token_B1W = self.token.expand(len(h_BPW), -1, -1)
        h_BTW = torch.cat((token_B1W, h_BPW), 1) + self.positions
        return self.head(self.norm(self.blocks(self.dropout(h_BTW)))[:, 0])
