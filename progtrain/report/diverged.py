"""What a run that is not finite any more leaves: `diverged.json`, and where it can go on."""

from __future__ import annotations

from pathlib import Path

from progtrain.checkpoint.read import candidates
from progtrain.errors import DivergedError
from progtrain.report.files import strict

DIVERGED = "diverged.json"


def diverged(directory: Path, error: DivergedError, first: bool) -> DivergedError:
    """The error with the last checkpoint and the file that holds what is known of the step.

    `first`: whether this is the process that stores, of several.
    """
    stored = candidates(directory / "checkpoints")
    last = f"Last checkpoint: {stored[0]}." if stored else "There is no checkpoint yet."
    if error.facts is None:
        return DivergedError(f"{error} {last}")
    path = directory / DIVERGED
    facts = {
        **error.facts,
        "error": str(error),
        "last_checkpoint": str(stored[0]) if stored else None,
    }
    if first:
        path.write_text(strict(facts, indent=1) + "\n", encoding="utf-8")
    return DivergedError(f"{error} {last} Its batch is in {path}.", facts)
