"""`study.json`: what a study declared, beside its jobs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from progtrain.comparison.result import Kind
from progtrain.errors import ConfigError

NAME = "study.json"


@dataclass(frozen=True)
class Told:
    """An arm, with all settings of its jobs but the seed."""

    name: str
    kind: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """Everything that the comparison must know and that no run tells."""

    name: str
    title: str
    metric: str
    mode: str  # max or min
    margin: float | None
    seeds: tuple[int, ...]
    arms: tuple[Told, ...]
    command: str

    @property
    def kinds(self) -> dict[str, Kind]:
        """By arm, in the order declared."""
        return {arm.name: Kind(arm.kind) for arm in self.arms}


def read(directory: Path) -> Study | None:
    """The study in a directory, or None; raises `ConfigError` for a damaged file."""
    path = directory / NAME
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        arms = tuple(Told(a["name"], a["kind"], tuple(a["overrides"])) for a in told["arms"])
        stored: dict[str, Any] = {**told, "arms": arms, "seeds": tuple(told["seeds"])}
        study = Study(**stored)
        _ = study.kinds  # raises where one is no kind
        return study
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read as a study ({type(error).__name__}: {error}). Move it away and"
            " give the study's command again, or move its runs out of there."
        ) from error


def write(study: Study, directory: Path) -> None:
    """Store it in one piece: another process may read it now."""
    part = directory / f".{NAME}.{os.getpid()}"
    content: Mapping[str, Any] = asdict(study)
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(directory / NAME)


def merged(before: Study | None, now: Study, directory: Path) -> Study:
    """What is declared with what was: further seeds and arms join; the question stays the same.

    Raises `ConfigError` where the metric, the margin or an arm's kind is another one: a question
    that changes after the first answer is none.
    """
    if before is None:
        return now
    changed = [
        f"study.{name}: {getattr(before, name)} -> {getattr(now, name)}"
        for name in ("name", "metric", "mode", "margin")
        if getattr(before, name) != getattr(now, name)
    ]
    kinds = {arm.name: arm.kind for arm in before.arms}
    changed += [
        f"the kind of arm {arm.name}: {kinds[arm.name]} -> {arm.kind}"
        for arm in now.arms
        if kinds.get(arm.name, arm.kind) != arm.kind
    ]
    if changed:
        raise ConfigError(another(directory, changed))
    names = {arm.name for arm in now.arms}
    arms = (*now.arms, *(arm for arm in before.arms if arm.name not in names))
    return replace(now, seeds=tuple(sorted({*before.seeds, *now.seeds})), arms=arms)


def another(directory: Path, changed: Sequence[str]) -> str:
    """Why a study cannot go on where its jobs are those of another one."""
    more = f"; and {len(changed) - 4} more" if len(changed) > 4 else ""
    return (
        f"{directory} holds a study that was declared otherwise: {'; '.join(changed[:4])}{more}."
        " Give the command as before to continue it, or hydra.sweep.dir=<directory> for another"
        " study; a study.name of its own does that too."
    )
