"""What a run's files tell of it, however much of them there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progtrain.report.rows import number, read_object, read_rows, read_settings

_SECRET = re.compile(r"(?i)secret|passw|credential|api_?key|(^|[._+])(token|key)=")


@dataclass(frozen=True)
class Past:
    """A run as it lies on disk."""

    folder: Path
    result: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]  # of metrics.jsonl
    events: tuple[Mapping[str, Any], ...]
    settings: tuple[tuple[str, str], ...]  # by full name; secrets are masked in the file

    @property
    def begun(self) -> Mapping[str, Any]:
        """What the run said when it started first."""
        return next((event for event in self.events if event.get("kind") == "started"), {})

    @property
    def metric(self) -> str:
        return str(self.result.get("metric_name") or self.begun.get("metric_name") or "val/loss")

    @property
    def mode(self) -> str:
        return str(self.result.get("mode") or self.begun.get("mode") or "min")

    @property
    def growths(self) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event.get("kind") == "growth"]

    def lives(self) -> list[Mapping[str, Any]]:
        """Where each growth stood at the end; of one told by its last event where no result is."""
        told = self.result.get("growth_lives")
        if isinstance(told, list):
            return [life for life in told if isinstance(life, dict)]
        latest: dict[Any, Mapping[str, Any]] = {}
        for event in self.events:
            if "phase" in event and "index" in event:
                latest[event["index"]] = event
        return [latest[index] for index in sorted(latest)]

    def series(self, name: str) -> tuple[tuple[float, float], ...]:
        """(step, value) of a column, where it has a value."""
        found = ((number(row.get("step")), number(row.get(name))) for row in self.rows)
        return tuple((x, y) for x, y in found if x is not None and y is not None)

    def columns(self, prefix: str) -> list[str]:
        """Names of the columns that begin so."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if name.startswith(prefix)]


def read(folder: Path) -> Past:
    """The run in `folder`; raises `FileNotFoundError` where nothing of a run is."""
    seen, events = (tuple(read_rows(folder / name)) for name in ("metrics.jsonl", "events.jsonl"))
    result = read_object(folder / "result.json")
    if not (seen or events or result):
        raise FileNotFoundError(f"{folder} holds no result.json, metrics.jsonl or events.jsonl.")
    return Past(folder, result, seen, events, tuple(_settings(folder / "config.yaml")))


def typed(past: Past) -> str:
    """The command that started the run, secrets masked."""
    words = past.result.get("overrides") or past.begun.get("overrides") or []
    return " ".join(["progtrain", *(_masked(str(word)) for word in words)])


def _masked(word: str) -> str:
    key, sign, _ = word.partition("=")
    return f"{key}=***" if sign and _SECRET.search(f"{key}=") else word


def _settings(path: Path) -> Iterator[tuple[str, str]]:
    """Every setting by its full name, in words."""
    for name, value in read_settings(path).items():
        yield name, "null" if value is None else str(value)
