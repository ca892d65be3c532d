"""Checks that the data sets share."""

from __future__ import annotations

from progtrain.errors import require


def check_share(setting: str, value: float) -> None:
    require(0 < value < 1, setting, value, "a share in (0, 1)")
