"""What a logger is told of a run, and what it opens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from progtrain.errors import ConfigError
from progtrain.run import Json


@dataclass(frozen=True)
class Book:
    """A run, as a logger opens it."""

    directory: Path  # of the run; what a logger writes by default lies in it
    settings: Mapping[str, Json]  # resolved, secrets masked
    step: int = 0  # where it goes on; 0: it is new

    @property
    def name(self) -> str:
        """The last two parts of the directory, which tell a run of a date or of a sweep."""
        return "/".join(self.directory.absolute().parts[-2:]).lstrip("/")


@dataclass(frozen=True)
class Result:
    """How a run has ended: `done`, `interrupted` or `failed`; figures where it is not failed."""

    status: str = "failed"
    step: int = 0
    figures: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    texts: Mapping[str, str] = field(default_factory=lambda: dict[str, str]())


class Tracker(Protocol):
    """An open logger."""

    @property
    def forgets(self) -> bool:
        """Whether opening a run again has dropped what lay behind the step where it goes on."""
        ...

    def log(self, step: int, values: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Numbers and sentences of one moment, by name; on disk or sent when it returns."""
        ...

    def finish(self, result: Result) -> None:
        """Store the result and close."""
        ...


def flat(settings: Mapping[str, Json], path: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Settings by dotted name, as numbers and text; a list is one text."""
    for key, value in settings.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            yield from flat(value, name)
        elif isinstance(value, bool | int | float | str):
            yield name, value
        else:
            yield name, json.dumps(value)


def needs(package: str, logger: str) -> None:
    """Raise `ConfigError` where an optional package is missing; nothing is imported."""
    if find_spec(package) is None:
        raise ConfigError(
            f"logger={logger} needs the package {package}: pip install 'progtrain[{logger}]'"
        )


def remembered(book: Book, logger: str) -> dict[str, Json]:
    """What a logger has kept in the directory of a run that goes on; else nothing."""
    try:
        kept = json.loads(_memory(book, logger).read_text(encoding="utf-8")) if book.step else {}
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def remember(book: Book, logger: str, kept: Mapping[str, Json]) -> None:
    """Keep it there, all of it or nothing."""
    path = _memory(book, logger)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(dict(kept)), encoding="utf-8")
    draft.replace(path)


def _memory(book: Book, logger: str) -> Path:
    return book.directory / "loggers" / f"{logger}.json"


def milliseconds() -> int:
    """The time of now, as trackers count it."""
    return round(time.time() * 1000)
