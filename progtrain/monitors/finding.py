"""What a monitor hands to the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


class Occasion(Enum):
    """When a monitor looks."""

    STEP = auto()  # an optimizer step is over
    BOUNDARY = auto()  # a step is over after which an evaluation comes
    OBSERVED = auto()  # an evaluation is over


@dataclass(frozen=True)
class Finding:
    """What a monitor has found."""

    told: str  # a sentence
    event: int | None = None  # index of the growth that it is about
    blames: bool = True  # False: it is told, and no remedy follows
    key: str = ""  # under which it is told once in a run; empty: once for each growth


@dataclass(frozen=True)
class Watched:
    """What a monitor has seen on one occasion, and what looking has cost."""

    findings: tuple[Finding, ...] = ()
    contributions: Mapping[int, float] = field(default_factory=lambda: dict[int, float]())
    flops: float = 0.0  # of evaluations that only the monitor asked for
