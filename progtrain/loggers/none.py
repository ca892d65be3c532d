"""No logger: the run's own files are all there is."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.loggers.logger import Book


@dataclass(frozen=True)
class NoLogger:
    """Tells nobody."""

    def where(self, book: Book) -> str:
        return ""

    def open(self, book: Book) -> None:
        """Nothing is opened."""
