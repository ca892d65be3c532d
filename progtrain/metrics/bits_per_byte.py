"""Bits per byte: what the network needs to write down a byte of the text it has not seen.

Equation: (Σ cross entropy in nats) / (ln 2 · targets · bytes a target).
What for: networks with different tokenizers can be compared, and with compressors.
When it misleads: bytes a target are a mean over the data, so of a split with other words it is
near, not exact.
Reference: Gao et al., The Pile, arXiv 2101.00027, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from torch import Tensor

from progtrain.errors import ConfigError
from progtrain.metrics.counting import Counting
from progtrain.metrics.tally import Counted

if TYPE_CHECKING:
    from progtrain.setup import Setup


@dataclass(frozen=True)
class BitsPerByte(Counting):
    """At least 0, and less is better; 8 for a network that knows nothing of bytes."""

    smaller = True

    def check(self, setup: Setup) -> None:
        if setup.bytes_per_target is None:
            raise ConfigError(
                "metric=bits_per_byte is for text: these data do not say how many bytes a target"
                " stands for. Try data=text model=gpt, or metric=perplexity."
            )

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float | None:
        nats, size = counted.cross_entropy, counted.bytes_per_target
        return None if nats is None or size is None else nats / log(2) / size
