"""Restart: the learning rate begins again at every growth."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.contracts import Shape
from progtrain.schedulers.shape import When


def restart(shape: Shape, when: When) -> float:
    """Begin the shape again at the last growth, with the rest of the run as its whole length.

    m(t) = shape(t - g) on the horizon T - g, with g the last growth; shares of the run (`20%`)
    become shares of T - g, and a metric from before g is forgotten.

    Reference: the warm restart of Loshchilov & Hutter 2017 (arXiv 1608.03983), at growths instead
    of fixed distances.
    """
    return shape.multiplier(when.restarted(when.growths[-1]) if when.growths else when)


@dataclass(frozen=True)
class Restart:
    """`restart`; it has nothing to set."""

    def multiplier(self, shape: Shape, when: When) -> float:
        return restart(shape, when)
