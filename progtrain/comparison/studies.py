"""What a study has declared before its first run, as its `study.json` tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from progtrain.comparison.result import Kind
from progtrain.errors import ConfigError

STUDY = "study.json"


@dataclass(frozen=True)
class Study:
    """What a study has declared before its first job."""

    name: str
    title: str
    metric: str
    mode: str
    margin: float | None
    kinds: Mapping[str, Kind]  # by arm, in the order declared
    command: str


def read_study(path: Path) -> Study:
    """A study.json; raises `ConfigError` where it is not what a study writes."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        arms = {str(arm["name"]): Kind(arm["kind"]) for arm in told["arms"]}
        margin = told.get("margin")
        return Study(
            name=str(told["name"]),
            title=str(told.get("title") or told["name"]),
            metric=str(told["metric"]),
            mode=str(told["mode"]),
            margin=None if margin is None else float(margin),
            kinds=arms,
            command=str(told.get("command", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a study ({type(error).__name__}: {error}). Run the study"
            " again, or move its runs out of there."
        ) from error
