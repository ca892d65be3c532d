"""Reduce on plateau: the rate falls by a factor when the primary metric stops improving."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, is_whole


def reduce_on_plateau(metrics: Iterable[float], rule: ReduceOnPlateau) -> float:
    """Multiply the learning rate by `factor` after more than `patience` evaluations without a best.

    m = max(min_factor, factor^n), where n counts reductions. A value is a best where it exceeds the
    last best by a share `threshold` of it; `cooldown` evaluations after a reduction do not count.

    Reference: torch.optim.lr_scheduler.ReduceLROnPlateau with threshold_mode rel and eps 0.
    """
    up = rule.mode == "max"
    multiplier, waited, cooling = 1.0, 0, 0
    best, margin = (-float("inf"), 1 + rule.threshold) if up else (float("inf"), 1 - rule.threshold)
    for value in metrics:
        improved = value > best * margin if up else value < best * margin
        best, waited = (value, 0) if improved else (best, waited + 1)
        if cooling > 0:
            cooling, waited = cooling - 1, 0
        if waited > rule.patience:
            multiplier = max(multiplier * rule.factor, rule.min_factor)
            waited, cooling = 0, rule.cooldown
    return multiplier


@dataclass(frozen=True)
class ReduceOnPlateau:
    """`reduce_on_plateau`, folded over the evaluations so far: there is no state to lose."""

    mode: str = "max"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    min_factor: float = 0.0

    def __post_init__(self) -> None:
        known = self.mode in ("max", "min")
        hint = "Use max for an accuracy, min for a loss."
        require(known, "mode", self.mode, "max or min", hint)
        below = is_number(self.factor, 0, 1) and self.factor < 1
        require(below, "factor", self.factor, "a number in [0, 1)", "Try 0.1.")
        share = is_number(self.threshold, 0, 1) and self.threshold < 1
        require(share, "threshold", self.threshold, "a number in [0, 1)", "Try 0.0001.")
        least = is_number(self.min_factor, 0, 1)
        require(least, "min_factor", self.min_factor, "a number in [0, 1]", "Try 0.0.")
        for setting in ("patience", "cooldown"):
            count = getattr(self, setting)
            require(is_whole(count, 0), setting, count, "a whole number >= 0", "Try 10.")

    def multiplier(self, when: When) -> float:
        return reduce_on_plateau((value for _, value in when.metrics), self)
