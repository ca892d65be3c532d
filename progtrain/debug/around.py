"""What a debug mode works with beside the machine, and what it has to say at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from progtrain.errors import FoundError

if TYPE_CHECKING:
    from progtrain.machine import Machine


class Again(Protocol):
    """Makes the run of a job anew, silent and with nothing stored."""

    def __call__(self, past: Machine | None = None) -> Machine:
        """From the start; or from a checkpoint of `past`, written to disk and read again."""
        ...


@dataclass
class Around:
    """The job around a machine, as a debug mode sees it."""

    directory: Path  # of the run
    again: Again
    first: bool = True  # whether this is the process that shows and stores
    lines: list[str] = field(default_factory=lambda: list[str]())  # said when the run is over
    problem: str = ""  # what has been found, where that is what the mode looks for

    def conclude(self, say: Callable[[str], None]) -> None:
        """Say and store (`debug.txt`) what has been seen; raises `FoundError`."""
        if self.lines and self.first:
            text = "\n".join(self.lines)
            say(text)
            (self.directory / "debug.txt").write_text(text + "\n", encoding="utf-8")
        if self.problem:
            raise FoundError(self.problem)
