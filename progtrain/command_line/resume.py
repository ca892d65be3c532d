"""Continues a run: its directory, the settings it was started with, and what changes now."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Quote, QuotedString

from progtrain.command_line import tree
from progtrain.command_line.argv import Command, Mode, key_of
from progtrain.command_line.directory import holds_checkpoint, holds_run
from progtrain.command_line.session import given
from progtrain.command_line.values import shown
from progtrain.errors import CheckpointError, ConfigError

_LARGEST = 1 << 20  # bytes of a YAML file that is read back
_FOLLOWING = ("data.num_classes", "train.mode")  # stored as what they follow to be
_OWN = ("resume", "plugins")  # never taken from a run directory
_ASIDE = ("compare.", "runs", "predict.", "export.", "input")  # no run is another one by these
_FIXED = ("seed", "model", "growth.start")  # what a checkpoint cannot follow


def continued(command: Command, asked: object, directory: Path | None) -> Command:
    """`command` with the settings of the run that `resume=asked` names in front of its own.

    `directory` is what the command gives as hydra.run.dir (hydra.sweep.dir for a multirun).
    """
    if asked is None or asked is False:
        return command
    if asked is not True and not isinstance(asked, str):
        raise ConfigError(f"resume must be true, false, auto or a path, got {shown(asked)}.")
    if command.mode is Mode.SWEEP:
        return _continued_sweep(command, asked, directory)
    if asked is True or asked == "auto":
        if directory is None:
            raise ConfigError(
                f"resume={shown(asked).strip(chr(39))} continues hydra.run.dir, which is not given."
                " Write resume=<directory of the run>."
            )
        place = directory
    else:
        place = _existing(asked)
    if not holds_checkpoint(place):
        if asked == "auto":
            return command  # starts; the job sees that there is nothing to continue
        if not place.is_dir():
            raise CheckpointError(f"Run directory not found: {place}.{_nearest(place)}")
        raise CheckpointError(f"No checkpoint in {place}. Start without resume.")
    return _with_stored(command, place)


def _continued_sweep(command: Command, asked: str | bool, directory: Path | None) -> Command:
    if asked is not True and asked != "auto":
        raise ConfigError(
            f"resume={asked} names one run. A multirun is continued by the same command with"
            " resume=auto hydra.sweep.dir=<directory of the multirun>."
        )
    if directory is None:
        raise ConfigError("resume with -m continues hydra.sweep.dir, which is not given.")
    if asked is True and not holds_run(directory):
        raise CheckpointError(f"No multirun in {directory}.{_nearest(directory)}")
    return replace(command, overrides=_with(command.overrides, "resume", "auto"))


def _existing(asked: str) -> Path:
    """The directory that a path names."""
    place = Path(asked).expanduser()
    if not place.exists():
        if not any(sign in asked for sign in "/.~"):
            raise ConfigError(f"resume must be true, false, auto or a path, got {asked!r}.")
        raise CheckpointError(f"Run directory not found: {asked}.{_nearest(place)}")
    inside = next((p for p in (place, *place.parents) if p.name == "checkpoints"), None)
    if inside is not None:
        raise CheckpointError(f"resume takes the directory of the run: resume={inside.parent}.")
    if not place.is_dir():
        raise CheckpointError(f"{asked} is a file. resume takes the directory of a run.")
    return place


def _nearest(place: Path) -> str:
    """The run beside `place` whose name is nearest."""
    parent = place.parent
    names = [p.name for p in parent.iterdir() if holds_run(p)] if parent.is_dir() else []
    close = get_close_matches(place.name, names, 1, cutoff=0.0)
    return f" Nearest: {parent / close[0]}." if close else ""


def _with_stored(command: Command, place: Path) -> Command:
    """The command as if typed in full."""
    stored = _load(place / ".hydra" / "overrides.yaml")
    if not isinstance(stored, list) or not all(isinstance(text, str) for text in stored):
        raise CheckpointError(f"{place / '.hydra' / 'overrides.yaml'} is no list of settings.")
    kept = [text for text in stored if key_of(text) not in _OWN]
    overrides = merged(kept, [o for o in command.overrides if key_of(o) != "resume"])
    overrides = _with(overrides, "hydra.run.dir", quoted(place.absolute()))
    return replace(
        command,
        overrides=_with(overrides, "resume", "true"),
        config_dir=command.config_dir or _stored_config_dir(place),
    )


def merged(stored: Sequence[str], typed: Sequence[str]) -> tuple[str, ...]:
    """Stored settings, then typed ones; what is typed again replaces what was stored."""
    added = {key_of(text) for text in stored if text.startswith("+")}
    again = {key_of(text) for text in typed}
    first = [text for text in stored if key_of(text) not in again]
    # the stored addition goes, so the typed change has to add
    second = [f"++{t}" if key_of(t) in added and t[:1] not in "+~" else t for t in typed]
    return (*first, *second)


def quoted(path: Path) -> str:
    """A path as a value that Hydra reads as it is."""
    return QuotedString(str(path), Quote.single).with_quotes()


def _with(overrides: Sequence[str], key: str, value: str) -> tuple[str, ...]:
    return (*(text for text in overrides if key_of(text) != key), f"{key}={value}")


def _stored_config_dir(place: Path) -> str | None:
    """The --config-dir that the run was started with, where it is still there."""
    hydra = _load(place / ".hydra" / "hydra.yaml")
    try:
        sources: Any = hydra["hydra"]["runtime"]["config_sources"]  # type: ignore[index]
        paths = [s["path"] for s in sources if s["provider"] == "command-line"]
    except (KeyError, TypeError):
        return None
    return next((str(path) for path in paths if Path(str(path)).is_dir()), None)


def stored_choices(command: Command) -> Mapping[str, Any]:
    """The options that the run of a continued command was started with, by group."""
    place = given(command.overrides, "hydra.run.dir")
    hydra = _load(Path(str(place)) / ".hydra" / "hydra.yaml") if place else None
    try:
        return dict(hydra["hydra"]["runtime"]["choices"])  # type: ignore[index]
    except (KeyError, TypeError, ValueError):
        return {}


def _load(path: Path) -> object:
    """YAML without aliases, which could blow up."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST or any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(text)):
            raise CheckpointError(f"{path} is not what progtrain wrote.")
        return yaml.safe_load(text)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged.") from error


def refuse_another_run(place: Path, config: Mapping[str, Any]) -> list[str]:
    """What a resumed run is now told differently; raises where that would be another run."""
    changed = changes(place, config)
    fixed = [line for line in changed if re.match(rf"({'|'.join(_FIXED)})[.:\[]", line)]
    if fixed:
        more = f" and {len(fixed) - 3} more" if len(fixed) > 3 else ""
        raise ConfigError(
            f"The run in {place} cannot continue with {'; '.join(fixed[:3])}{more}."
            " Start a new run for that."
        )
    return changed


def changes(place: Path, config: Mapping[str, Any]) -> list[str]:
    """How `config` differs from what the run in `place` was last told, a line a setting."""
    if not (place / "config.yaml").is_file():
        return []
    before = dict(tree.leaves(_load(place / "config.yaml")))
    after = dict(tree.leaves(dict(config)))
    for setting in _FOLLOWING:
        known = before.get(setting)
        if after.get(setting, known) is None:  # it follows from others, wherever it is used
            after |= {n: known for n in after if after[n] is None and before.get(n) == known}
    every = [name for name in {**before, **after} if name.split("[")[0] not in _OWN]
    names = [name for name in every if not name.startswith(_ASIDE)]
    return [
        f"{name}: {shown(before.get(name))} -> {shown(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def finished(place: Path) -> float | None:
    """The metric of a job that has run to its end, or None."""
    try:
        told = json.loads((place / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("status") != "done":
        return None
    metric = told.get("metric")
    return float(metric) if isinstance(metric, int | float) else float("nan")
