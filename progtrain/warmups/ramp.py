"""What the ramps share."""

from __future__ import annotations

from progtrain.clock import Duration
from progtrain.errors import require


def check_length(length: str) -> None:
    parsed = Duration.parse(length, "length")
    require(parsed.value > 0, "length", length, "longer than 0", "warmup=none has no ramp.")
