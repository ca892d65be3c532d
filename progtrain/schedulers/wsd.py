"""Warmup, stable, decay: the rate rises briefly, stays, and falls at the end."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration, Unit
from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number


def wsd(risen: float, left: float, final: float) -> float:
    """Raise the learning rate straight, hold it at its base, and lower it straight to `final`.

    m = min(risen, final + (1 - final) left), where `risen` is the share of the warmup that the
    coming step completes and `left` the share of the decay that is not over, both 1 in between.
    A decay of n steps goes 1, (n-1)/n, ..., 1/n for final 0, so no step is trained at rate 0.

    Reference: Hu et al. 2024, MiniCPM (arXiv 2404.06395); the linear decay of Hägele et al.
    2024 (arXiv 2405.18392).
    """
    return min(risen, final + (1 - final) * left)


@dataclass(frozen=True)
class Wsd:
    """`wsd`; its flat part makes it blind to growths in it, so it is the default."""

    warmup: str = "2%"
    decay: str = "20%"
    final: float = 0.0

    def __post_init__(self) -> None:
        warmup = Duration.parse(self.warmup, "warmup")
        decay = Duration.parse(self.decay, "decay")
        shares = sum(part.value for part in (warmup, decay) if part.unit is Unit.FRACTION)
        hint = f"The warmup takes {self.warmup}."
        require(shares <= 1 + 1e-9, "decay", self.decay, "at most what the warmup leaves", hint)
        require(is_number(self.final, 0, 1), "final", self.final, "a number in [0, 1]", "Try 0.0.")

    def multiplier(self, when: When) -> float:
        decay = when.share(Duration.parse(self.decay, "decay"), "decay")
        left = min(1.0, (1 - when.fraction) / decay) if decay else 1.0
        return wsd(when.reached(Duration.parse(self.warmup, "warmup")), left, self.final)
