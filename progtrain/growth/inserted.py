"""Modules that join a host's module, and the wrappers that add what they compute to its output.

The last layer of every new module is called `out`; with zeros in it the module adds nothing.

Shapes: B batch, T positions, H heads, D head size; F features, which are the last dimension for
`layer=linear` and the second for conv1d and conv2d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-5
_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": lambda into, onto: nn.Conv1d(into, onto, 1),
    "conv2d": lambda into, onto: nn.Conv2d(into, onto, 1),
}
_BATCH_NORMS = {"linear": nn.BatchNorm1d, "conv1d": nn.BatchNorm1d, "conv2d": nn.BatchNorm2d}


class Inserted(nn.Module, ABC):
    """`host` as it was, and `inserted`, whose output is added.

    Attributes that it lacks are those of the host's module, so code that reads `block.conv.stride`
    or `block[0]` goes on.
    """

    def __init__(self, host: nn.Module, inserted: nn.Module) -> None:
        super().__init__()
        self.host = host
        self.inserted = inserted

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or name in ("host", "inserted"):  # while it is being copied
                raise
            return getattr(self.host, name)

    def __getitem__(self, index: Any) -> Any:
        host: Any = self.host
        return host[index]

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Tensor: ...


class Behind(Inserted):
    """y + f(y) with y = host(x)."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        y = self.host(*args, **kwargs)
        return y + self.inserted(y)


class Beside(Inserted):
    """host(x) + f(x)."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        added = self.inserted(args[0])
        return self.host(*args, **kwargs) + added


class OverChannels(nn.Module):
    """A norm over the last dimension, over the second one."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.norm(x_BF.movedim(1, -1)).movedim(-1, 1)


class Branch(nn.Module):
    """out(gelu(up(norm(x)))), position by position."""

    def __init__(self, into: int, onto: int, layer: str, norm: str, hidden: int) -> None:
        super().__init__()
        self.norm = _norm(norm, layer, into)
        self.up = _LAYERS[layer](into, hidden)
        self.out = _LAYERS[layer](hidden, onto)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.out(F.gelu(self.up(self.norm(x_BF))))


class Adapter(nn.Module):
    """out(gelu(down(norm(x)))) with few units between."""

    def __init__(self, into: int, onto: int, layer: str, norm: str, rank: int) -> None:
        super().__init__()
        self.norm = _norm(norm, layer, into)
        self.down = _LAYERS[layer](into, rank)
        self.out = _LAYERS[layer](rank, onto)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.out(F.gelu(self.down(self.norm(x_BF))))


class Attention(nn.Module):
    """Multi-head self-attention over all positions between batch and features."""

    def __init__(
        self, into: int, onto: int, layer: str, norm: str, heads: int, causal: bool
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.channels_first = heads, causal, layer != "linear"
        self.norm = _norm(norm, layer, into)
        self.q = nn.Linear(into, into, bias=False)
        self.k = nn.Linear(into, into, bias=False)
        self.v = nn.Linear(into, into, bias=False)
        self.out = nn.Linear(into, onto)

    def forward(self, x_BF: Tensor) -> Tensor:
        x_BF = self.norm(x_BF)
        if self.channels_first:
            mixed_BTF = self._attend(x_BF.flatten(2).transpose(1, 2))
            return mixed_BTF.transpose(1, 2).unflatten(2, x_BF.shape[2:])
        if x_BF.ndim == 3:
            return self._attend(x_BF)
        return self._attend(x_BF.flatten(1, -2)).unflatten(1, x_BF.shape[1:-1])

    def _attend(self, x_BTF: Tensor) -> Tensor:
        batch, positions = x_BTF.shape[:2]
        q_BHTD, k_BHTD, v_BHTD = (
            project(x_BTF).view(batch, positions, self.heads, -1).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        mixed_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=self.causal)
        return self.out(mixed_BHTD.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        return f"heads={self.heads}" + ", causal" * self.causal


KINDS: dict[str, type[nn.Module]] = {"branch": Branch, "attention": Attention, "adapter": Adapter}
PLACES: dict[str, type[Inserted]] = {"behind": Behind, "beside": Beside}


def silence(inserted: nn.Module) -> None:
    """Take what an inserted module adds to zero."""
    with torch.no_grad():
        for parameter in inserted.get_submodule("out").parameters():
            parameter.zero_()


def silence_within(block: nn.Module) -> None:
    """The same for every module that has been inserted into `block`."""
    for module in block.modules():
        if isinstance(module, Branch | Attention | Adapter):
            silence(module)


def native(block: nn.Module) -> Iterator[nn.Module]:
    """The modules of `block` without those that have been inserted."""
    yield block
    for name, child in block.named_children():
        if not (isinstance(block, Inserted) and name == "inserted"):
            yield from native(child)


def _norm(norm: str, layer: str, features: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return _BATCH_NORMS[layer](features)
    over = nn.RMSNorm(features, eps=_EPS) if norm == "rms" else nn.LayerNorm(features, eps=_EPS)
    return over if layer == "linear" else OverChannels(over)
