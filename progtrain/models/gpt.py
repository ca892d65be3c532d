"""A decoder that predicts the next token (Radford et al., 2019; Touvron et al., arXiv 2302.13971).

Linear layers start as torch starts them, so their scale follows the width; embeddings and the head
are normal with deviation 0.02. Shapes: x_BT (batch, positions) of whole numbers, h_BTW (…, width),
logits_BTV (…, vocabulary).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.models.transformer import EMBEDDING_STD, BlockSettings, blocks_of, norm_of

_POSITIONS = ("rotary", "learned")


class GPT(nn.Module):
    """Tokens, `depth` blocks that see what came before, one head for the token after each."""

    def __init__(
        self,
        shape: Sequence[int],  # positions of one sample
        num_classes: int,  # size of the vocabulary
        width: int = 96,  # of the residual stream
        depth: int = 4,  # blocks
        heads: int = 4,  # of queries
        kv_heads: int | None = None,  # of keys and values; null: as many as heads
        head_size: int | None = None,  # null: width / heads
        hidden: int | None = None,  # units of each MLP; null: 4 × width
        norm: str = "rms",  # rms, layer
        positions: str = "rotary",  # rotary, learned
        tied: bool = False,  # whether the head's weight is the embedding
        mlp: str = "gelu",  # gelu, swiglu
        dropout: float = 0.0,
        qk_norm: bool = False,  # normalise queries and keys
    ) -> None:
        super().__init__()
        hint = "This model reads tokens; try data=text."
        require(len(shape) == 1, "shape", list(shape), "(positions)", hint)
        known = "one of " + ", ".join(_POSITIONS)
        require(positions in _POSITIONS, "positions", positions, known)
        settings = BlockSettings(
            width, depth, heads, kv_heads, head_size, hidden, norm, mlp, dropout, qk_norm,
            rotary=positions == "rotary", causal=True,
        )  # fmt: skip
        self.context = shape[0]  # positions it has been trained for (progtrain.generate)
        self.embedding = nn.Embedding(num_classes, width)
        self.positions = nn.Embedding(shape[0], width) if positions == "learned" else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = blocks_of(settings)
        self.norm = norm_of(settings)
        self.head = nn.Linear(width, num_classes, bias=False)
        for layer in (self.embedding, self.positions, self.head):
            if layer is not None:
                nn.init.normal_(layer.weight, std=EMBEDDING_STD)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x_BT: Tensor) -> Tensor:
        h_BTW = self.embedding(x_BT)
        if self.positions is not None:
            h_BTW = h_BTW + self.positions(torch.arange(x_BT.shape[1], device=x_BT.device))
        return self.head(self.norm(self.blocks(self.dropout(h_BTW))))
