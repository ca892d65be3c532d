"""How long a curriculum lasts, as all of them check it."""

from __future__ import annotations

from progtrain.clock import Duration
from progtrain.errors import require


def check_length(length: str, setting: str = "length") -> None:
    """Raise `SettingError` unless `length` is one of training, and not 0."""
    lasts = Duration.parse(length, setting).value > 0
    require(lasts, setting, length, "longer than 0", "Try 50%.")
