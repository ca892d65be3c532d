"""No metric beside the loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoMetric:
    """Counts nothing; a run leaves it out (build.py)."""
