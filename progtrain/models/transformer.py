"""What transformers are made of: attention, MLP, and the pre-norm residual block of both.

Attention (Vaswani et al., arXiv 1706.03762) with grouped queries (Ainslie et al., arXiv
2305.13245), rotary positions (Su et al., arXiv 2104.09864), norms of queries and keys (Henry et
al., arXiv 2010.04245), SwiGLU (Shazeer, arXiv 2002.05202). Norms stand before each part (Xiong et
al., arXiv 2002.04745). Every projection is a linear layer of its own, so a weight has one meaning.

Shapes: B batch, T positions, W width, H query heads, G heads of keys and values, D head size,
F hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.errors import require
from progtrain.models.layers import whole

EMBEDDING_STD = 0.02  # of GPT-2's first weights (Radford et al., 2019)
_ROTARY_BASE = 10_000.0
_EPS = 1e-6
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "rms": lambda size: nn.RMSNorm(size, eps=_EPS),
    "layer": lambda size: nn.LayerNorm(size, eps=_EPS),
}
_MLPS = ("gelu", "swiglu")


@dataclass(frozen=True)
class BlockSettings:
    """Everything a block is made by; null sizes are derived from the others."""

    width: int  # of the residual stream
    depth: int  # blocks of the network
    heads: int  # of queries
    kv_heads: int | None = None  # of keys and values; null: as many as heads
    head_size: int | None = None  # null: width / heads
    hidden: int | None = None  # units of the MLP; null: 4 × width
    norm: str = "layer"  # rms, layer
    mlp: str = "gelu"  # gelu, swiglu
    dropout: float = 0.0
    qk_norm: bool = False  # normalise queries and keys
    rotary: bool = False  # turn queries and keys by their positions
    causal: bool = False  # a position sees nothing after it

    def __post_init__(self) -> None:
        whole("width", self.width, 1)
        whole("depth", self.depth, 0)
        whole("heads", self.heads, 1)
        if self.kv_heads is not None:
            divides = self.kv_heads >= 1 and self.heads % self.kv_heads == 0
            allowed = f"a divisor of heads={self.heads}, or null"
            require(divides, "kv_heads", self.kv_heads, allowed)
        if self.hidden is not None:
            whole("hidden", self.hidden, 1)
        self._check_head_size()
        require(self.norm in _NORMS, "norm", self.norm, "one of " + ", ".join(_NORMS))
        require(self.mlp in _MLPS, "mlp", self.mlp, "one of " + ", ".join(_MLPS))
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a share in [0, 1)")

    def _check_head_size(self) -> None:
        """Heads must share the width evenly; rotary positions turn pairs of numbers."""
        if self.head_size is not None:
            whole("head_size", self.head_size, 1)
            even = not self.rotary or self.head_size % 2 == 0
            require(even, "head_size", self.head_size, "even with positions=rotary")
            return
        unit = 2 * self.heads if self.rotary else self.heads
        per_head = "2 × heads" if self.rotary else "heads"
        nearest = max(unit, unit * round(self.width / unit))
        allowed = f"a multiple of {per_head} = {unit}"
        hint = f"Try {nearest}, fewer heads, or a head_size."
        require(self.width % unit == 0, "width", self.width, allowed, hint)

    @property
    def size_of_head(self) -> int:
        return self.head_size or self.width // self.heads


class ResidualOutput(nn.Linear):
    """The last layer of a residual branch, made smaller the more branches add up.

    Without it the residual stream's variance grows with depth (Radford et al., 2019, section 2.3).
    """

    def __init__(self, in_features: int, out_features: int, branches: int) -> None:
        self.gain = max(1, branches) ** -0.5  # before nn.Linear calls reset_parameters
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(self.gain)


class Attention(nn.Module):
    """Multi-head attention; `heads` and `kv_heads` say how projections are cut into heads."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        width, size = settings.width, settings.size_of_head
        self.heads = settings.heads
        self.kv_heads = settings.kv_heads or settings.heads
        self.causal, self.rotary = settings.causal, settings.rotary
        self.q = nn.Linear(width, self.heads * size, bias=False)
        self.k = nn.Linear(width, self.kv_heads * size, bias=False)
        self.v = nn.Linear(width, self.kv_heads * size, bias=False)
        self.o = ResidualOutput(self.heads * size, width, 2 * settings.depth)
        norm = _NORMS["rms"] if settings.qk_norm else lambda _: nn.Identity()
        self.q_norm, self.k_norm = norm(size), norm(size)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BTW: Tensor) -> Tensor:
        q_BHTD = self.q_norm(_split(self.q(x_BTW), self.heads))
        k_BGTD = self.k_norm(_split(self.k(x_BTW), self.kv_heads))
        v_BGTD = _split(self.v(x_BTW), self.kv_heads)
        if self.rotary:
            q_BHTD, k_BGTD = rotated(q_BHTD), rotated(k_BGTD)
        mixed_BHTD = F.scaled_dot_product_attention(
            q_BHTD,
            k_BGTD,
            v_BGTD,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=self.causal,
            enable_gqa=self.kv_heads != self.heads,
        )
        return self.dropout(self.o(mixed_BHTD.transpose(1, 2).flatten(2)))

    def extra_repr(self) -> str:
        words = [f"heads={self.heads}, kv_heads={self.kv_heads}"]
        words += ["causal"] if self.causal else []
        words += ["rotary"] if self.rotary else []
        return ", ".join(words)


def _split(x_BTN: Tensor, heads: int) -> Tensor:
    """(batch, heads, positions, head size)."""
    batch, positions = x_BTN.shape[:2]
    return x_BTN.view(batch, positions, heads, -1).transpose(1, 2)


def rotated(x_BHTD: Tensor) -> Tensor:
    """Pairs of numbers turned by an angle that grows with the position.

    The product of a query and a key then depends on the distance of their positions alone. Angles
    are computed for the sizes at hand, in float32 whatever the precision of training.
    """
    positions, size = x_BHTD.shape[-2:]
    cos_TP, sin_TP = _turns(positions, size, x_BHTD.device)
    a_BHTP, b_BHTP = x_BHTD.chunk(2, -1)
    turned = (a_BHTP * cos_TP - b_BHTP * sin_TP, b_BHTP * cos_TP + a_BHTP * sin_TP)
    return torch.cat(turned, -1).type_as(x_BHTD)


@torch.compiler.assume_constant_result
def _turns(positions: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position and pair.

    They are remembered, as a compiled block would compute them anew for every head of every sample:
    a third of a step on an H200.
    """
    globals().pop(_TRACED, None)
    key = (positions, size, device)
    if type(torch.empty(0)) is not Tensor:  # a mode makes tensors that are none (torch.export)
        return _computed_turns(positions, size, device)
    if len(_TURNS) > _MOST_TURNS:  # a curriculum of lengths
        _TURNS.clear()
    if key not in _TURNS:
        with torch.inference_mode(False):
            _TURNS[key] = _computed_turns(positions, size, device)
    return _TURNS[key]


# Where dynamo leaves what it was told when it traced a block last. If it stays, the next block's
# graph calls the same by another name, and is not found among those that are stored on disk.
_TRACED = "sub_turns"
_MOST_TURNS = 64
_TURNS: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}


def _computed_turns(positions: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    place_T = torch.arange(positions, device=device, dtype=torch.float32)
    pair_P = torch.arange(0, size, 2, device=device, dtype=torch.float32)
    angle_TP = torch.outer(place_T, _ROTARY_BASE ** (-pair_P / size))
    return angle_TP.cos(), angle_TP.sin()


class MLP(nn.Module):
    """down(gelu(up(x))), or with a gate down(silu(gate(x)) × up(x))."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        hidden = settings.hidden or 4 * settings.width
        self.up = nn.Linear(settings.width, hidden, bias=False)
        gated = settings.mlp == "swiglu"
        self.gate = nn.Linear(settings.width, hidden, bias=False) if gated else None
        self.down = ResidualOutput(hidden, settings.width, 2 * settings.depth)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_BTW: Tensor) -> Tensor:
        up_BTF = self.up(x_BTW)
        hidden_BTF = F.gelu(up_BTF) if self.gate is None else F.silu(self.gate(x_BTW)) * up_BTF
        return self.dropout(self.down(hidden_BTF))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, settings: BlockSettings) -> None:
        super().__init__()
        self.norm1 = norm_of(settings)
        self.attention = Attention(settings)
        self.norm2 = norm_of(settings)
        self.mlp = MLP(settings)

    def forward(self, x_BTW: Tensor) -> Tensor:
        x_BTW = x_BTW + self.attention(self.norm1(x_BTW))
        return x_BTW + self.mlp(self.norm2(x_BTW))


def norm_of(settings: BlockSettings) -> nn.Module:
    return _NORMS[settings.norm](settings.width)


def blocks_of(settings: BlockSettings) -> nn.Sequential:
    return nn.Sequential(*(Block(settings) for _ in range(settings.depth)))
