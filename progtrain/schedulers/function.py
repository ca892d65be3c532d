"""Function: a shape of the user's own, as a function of the share of training that is over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number


def inverse_square_root(fraction: float, knee: float = 0.05) -> float:
    """Lower the learning rate as one over the square root of time, the example of a function.

    m(f) = sqrt(knee / (knee + f)), with f the share of training that is over.

    Reference: Vaswani et al. 2017 (arXiv 1706.03762), eq. 3; the shift by `knee` takes the place of
    its warmup and makes the rate begin at its base.
    """
    return math.sqrt(knee / (knee + fraction))


@dataclass(frozen=True)
class Function:
    """Any function of a fraction in [0, 1] that returns a multiplier."""

    function: Callable[[float], float]

    def __post_init__(self) -> None:
        hint = "Give it `_target_: your.module.function` and `_partial_: true`."
        require(callable(self.function), "function", self.function, "callable", hint)

    def multiplier(self, when: When) -> float:
        value = self.function(when.fraction)
        allowed = f"a function that returns numbers >= 0 (here at {when.fraction:g})"
        require(is_number(value, 0), "function", value, allowed)
        return value
