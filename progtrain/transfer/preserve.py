"""Every growth keeps the function: the grown network computes what the host did.

Where neither the operator nor the warmup promises it, outgoing weights of what is new are set to
zero, and every growth is held to `proof.tolerance`. What cannot keep it is refused before the
start. Function-preserving transformations: Chen et al., Net2Net, arXiv 1511.05641.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.contracts import Operator, Warmup
from progtrain.errors import ConfigError
from progtrain.growth.edits import Edit


@dataclass(frozen=True)
class Preserve:
    """Silences what is new where nothing else does, and requires the proof."""

    preserves = True
    teaching = None


def check_preserves(stage: str, operator: Operator, edit: Edit) -> None:
    """Raise `ConfigError` for a growth that cannot keep the function whatever is silenced."""
    if edit.inexact:
        why = f"{edit.inexact}"
        way = "widen=duplicate is exact where the factor is whole (widen.factor=2)"
    elif edit.answers and not operator.preserves:
        why = "a fresh head answers at once, so it cannot be silent"
        way = "head.fresh=false begins with a copy"
    elif operator.shares and not operator.preserves:
        why = f"{type(operator).__name__} changes weights of the host and promises nothing"
        way = "widen=duplicate and deepen=identity promise to keep the function"
    else:
        return
    raise ConfigError(
        f"transfer=preserve, but stage {stage!r} cannot keep the function: {why}. Try another"
        f" operator ({way}), or transfer=inherit."
    )


def silences(operator: Operator, warmup: Warmup) -> bool:
    """Whether what is new must be silenced for the function to stay."""
    return not (operator.preserves or warmup.preserves)
