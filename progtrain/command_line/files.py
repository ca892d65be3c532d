"""What is wrong with the user's own YAML files beyond their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from progtrain.command_line import tree
from progtrain.command_line.session import Session
from progtrain.command_line.typos import suggestion

_KINDS = {list: "a list", type(None): "nothing"}


def problems(directory: Path, overrides: Sequence[Override]) -> Iterator[str]:
    """Chosen files that hold no settings: they would be passed over in silence."""
    for override in overrides:
        value = override.value()
        for option in value if isinstance(value, list) else [value]:
            path = directory / override.key_or_group / f"{option}.yaml"
            if isinstance(option, str) and path.is_file():
                yield from _no_settings(path)


def _no_settings(path: Path) -> Iterator[str]:
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return  # composing it says what is wrong
    if not isinstance(held, dict):
        kind = _KINDS.get(type(held), f"the text {held!r}")
        yield f"{path} holds {kind}; write settings in it, such as 'name: value'."


def strangers(session: Session, config: DictConfig) -> Iterator[str]:
    """Settings of the top level that nobody reads; what others refer to is the user's own."""
    known = {*map(str, session.defaults), *(group.split("/")[0] for group in session.groups)}
    plain = tree.raw(config)
    used = {name.split(".")[0] for name in tree.references(plain)}
    for name in map(str, config):
        if name not in known and name not in used:
            near = suggestion(name, [*session.groups, *map(str, session.defaults)])
            yield f"Unknown setting {name!r} in a file of yours: nothing reads it.{near}"
