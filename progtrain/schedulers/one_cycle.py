"""One cycle: the rate rises once and falls once, far below where it began."""

from __future__ import annotations

import math
from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number


def one_cycle(fraction: float, peak: float, end: float, low: float, final: float) -> float:
    """Raise the learning rate along half a cosine up to `peak`, then lower it up to `end`.

    m(f) = anneal(low, 1, f / peak) for f <= peak, else anneal(1, final, (f - peak) / (end - peak))
    with anneal(a, b, p) = b + (a - b) (1 + cos(pi p)) / 2.

    Reference: Smith & Topin 2018, Super-convergence (arXiv 1708.07120);
    torch.optim.lr_scheduler.OneCycleLR with anneal_strategy cos and two phases.
    """
    if fraction <= peak:
        return _anneal(low, 1.0, fraction / peak if peak > 0 else 1.0)
    return _anneal(1.0, final, min(1.0, (fraction - peak) / max(end - peak, 1e-12)))


def _anneal(begin: float, end: float, progress: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OneCycle:
    """`one_cycle` over the whole run; the group's base rate is the peak (torch's `max_lr`)."""

    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        inside = is_number(self.pct_start, 0, 1)
        require(inside, "pct_start", self.pct_start, "a number in [0, 1]", "Try 0.3.")
        for setting in ("div_factor", "final_div_factor"):
            factor = getattr(self, setting)
            require(is_number(factor, 1), setting, factor, "a number >= 1", "Try 25.")

    def multiplier(self, when: When) -> float:
        low = 1 / self.div_factor
        # torch counts steps from 0, so both phases end one step early: the last step has `final`
        peak, end = self.pct_start - when.step_share, 1 - when.step_share
        return one_cycle(when.fraction, peak, end, low, low / self.final_div_factor)
