"""Perplexity: among how many equally likely classes the network is as undecided.

Equation: exp of the mean cross entropy over all targets, in nats.
When it misleads: across tokenizers, because it is per token; bits_per_byte compares those.
Reference: Jelinek et al., Perplexity: a measure of the difficulty of speech recognition tasks,
Journal of the Acoustical Society of America 62, 1977.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf

from torch import Tensor

from progtrain.metrics.counting import Counting
from progtrain.metrics.tally import Counted

_LARGEST = 700.0  # nats; exp of more is no number


@dataclass(frozen=True)
class Perplexity(Counting):
    """At least 1, and less is better; of the head that answers, or one with as many outputs."""

    smaller = True

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float | None:
        nats = counted.cross_entropy
        if nats is None:
            return None
        return inf if nats > _LARGEST else exp(nats)
