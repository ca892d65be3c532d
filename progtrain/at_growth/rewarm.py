"""Rewarm: the learning rate dips at every growth and rises to where it would have been."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.contracts import Shape
from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number


def rewarm(risen: float, from_factor: float) -> float:
    """Scale the continuing shape by a straight rise that begins at the last growth.

    m(t) = shape(t) (from_factor + (1 - from_factor) risen), where `risen` in (0, 1] counts the
    coming step: n steps go 1/n, 2/n, ..., 1, and none is trained at rate 0.

    Reference: linear warmup (Goyal et al. 2017, arXiv 1706.02677, section 2.2) at each growth.
    """
    return from_factor + (1 - from_factor) * risen


@dataclass(frozen=True)
class Rewarm:
    """`rewarm` over `length`; a share is one of the whole run."""

    length: str = "2%"
    from_factor: float = 0.0

    def __post_init__(self) -> None:
        Duration.parse(self.length, "length")
        inside = is_number(self.from_factor, 0, 1)
        require(inside, "from_factor", self.from_factor, "a number in [0, 1]", "Try 0.0.")

    def multiplier(self, shape: Shape, when: When) -> float:
        full = shape.multiplier(when)
        if not when.growths:
            return full
        length = Duration.parse(self.length, "length")
        return full * rewarm(when.reached_since(when.growths[-1], length), self.from_factor)
