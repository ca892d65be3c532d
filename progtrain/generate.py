"""Continues a sequence of tokens with a network that predicts the next one.

Shapes: tokens_BT (batch, positions) of whole numbers, logits_BV (batch, vocabulary).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from progtrain.errors import ConfigError, require


@torch.no_grad()
def generate(
    model: nn.Module,
    tokens_T: Tensor,
    count: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    context: int | None = None,
) -> Tensor:
    """`tokens_T`, one or more of them, and `count` tokens that the model adds (T + count,), int64.

    Temperature 0 takes the likeliest token; else one is drawn from softmax(logits / temperature) of
    the `top_k` likeliest (Fan et al., arXiv 1805.04833; None: of all). The model, tokens (B, T) →
    logits (B, T, V), sees the last `context` tokens; None: as many as its attribute `context` says,
    or all. It is left in the mode (training or evaluation) it was in. Draws are made on the CPU, so
    a seed gives one text on every device that gives the same logits.

    Raises `SettingError` for numbers that cannot be, `ConfigError` for no tokens or another model.
    """
    require(count >= 0, "count", count, "a whole number >= 0")
    require(0 <= temperature < float("inf"), "temperature", temperature, "a number >= 0")
    require(top_k is None or top_k >= 1, "top_k", top_k, "a whole number >= 1, or null for all")
    if tokens_T.ndim != 1 or not len(tokens_T):
        raise ConfigError("There is nothing to continue: give a text of at least one token.")
    seen = context if context is not None else getattr(model, "context", None)
    seen = int(seen) if seen is not None else len(tokens_T) + count
    require(seen >= 1, "context", seen, "a whole number >= 1")
    device = next((p.device for p in model.parameters()), tokens_T.device)
    known = len(tokens_T)
    out_1T = torch.empty(1, known + count, dtype=torch.int64, device=device)
    out_1T[0, :known] = tokens_T
    was_training = model.training
    model.eval()
    try:
        for end in range(known, known + count):
            logits_V = _last(model, out_1T[:, max(0, end - seen) : end])
            out_1T[0, end] = _drawn(logits_V, temperature, top_k, generator)
    finally:
        model.train(was_training)
    return out_1T[0].cpu()


def _last(model: Callable[[Tensor], Tensor], tokens_1T: Tensor) -> Tensor:
    """Logits (V,) of what follows, as float32 on the CPU."""
    logits = model(tokens_1T)
    if logits.ndim != 3 or logits.shape[:2] != tokens_1T.shape:
        raise ConfigError(
            f"Only a model that predicts the next token can continue a text: this one maps tokens"
            f" {tuple(tokens_1T.shape)} to {tuple(logits.shape)}, not to"
            f" {(*tokens_1T.shape, 'V')}. Try model=gpt."
        )
    return logits[0, -1].float().cpu()


def _drawn(
    logits_V: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    if temperature == 0:
        return logits_V.argmax()
    if top_k is not None and top_k < len(logits_V):
        least, order_K = logits_V.topk(top_k)
        drawn = torch.multinomial((least / temperature).softmax(0), 1, generator=generator)
        return order_K[drawn[0]]
    return torch.multinomial((logits_V / temperature).softmax(0), 1, generator=generator)[0]
