"""Continue: the learning rate takes no notice of growths."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.contracts import Shape
from progtrain.schedulers.shape import When


@dataclass(frozen=True)
class Continue:
    """Let the shape go on as if nothing had grown.

    m(t) = shape(t). The counterpart that the two others are compared with.
    """

    def multiplier(self, shape: Shape, when: When) -> float:
        return shape.multiplier(when)
