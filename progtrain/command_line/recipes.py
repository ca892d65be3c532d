"""What a recipe (experiment=…) sets of a group goes with the option that it chooses there.

`experiment=late_growth growth=none` is the recipe's baseline: model, data and lengths are the
recipe's, while stages and the size of the first network belong to its own `growth=schedule`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from progtrain.command_line import tree

_OVERRIDE = "override /"


@dataclass
class _Recipe:
    options: dict[str, str] = field(default_factory=lambda: dict[str, str]())  # by group
    settings: list[str] = field(default_factory=lambda: list[str]())


def release(
    config: DictConfig, choices: Mapping[str, Any], folders: Sequence[Path], typed: Sequence[str]
) -> None:
    """Where `choices` is not what the recipe chooses, give that group back as its YAML has it.

    `folders` are searched for YAML, `typed` are the settings given by hand, which stay.
    """
    name = choices.get("experiment")
    recipe = _read(folders, "experiment", str(name)) if name else _Recipe()
    for group, option in recipe.options.items():
        chosen = str(choices.get(group))
        own = _load(folders, group, chosen)
        if chosen == option or own is None:
            continue
        node = group.replace("/", ".")
        settings = [given for given in typed if given != group]
        for path in recipe.settings:
            by_hand = any(_within(path, given) or _within(given, path) for given in settings)
            if _within(path, node) and not by_hand:
                _give_back(config, path, own, path[len(node) + 1 :].split("."))


def _give_back(config: DictConfig, path: str, own: DictConfig, keys: Sequence[str]) -> None:
    """One setting as `own` has it; where it does not, the outermost that it lacks goes."""
    known: Any = own
    for depth, key in enumerate(keys):
        if not isinstance(known, DictConfig) or key not in known:
            holder = path.split(".")[: depth - len(keys)]
            node = OmegaConf.select(config, ".".join(holder))
            if isinstance(node, DictConfig) and key in node:
                with open_dict(node):
                    del node[key]
            return
        known = known._get_node(key)  # pyright: ignore[reportPrivateUsage]
    OmegaConf.update(config, path, known, merge=False)


def _read(folders: Sequence[Path], group: str, name: str) -> _Recipe:
    """The options and settings of a recipe and of those it builds on."""
    recipe = _Recipe()
    loaded = _load(folders, group, name)
    if loaded is None:
        return recipe
    for key, value in _defaults(loaded):
        if key.startswith(_OVERRIDE):
            recipe.options[key.removeprefix(_OVERRIDE).partition("@")[0]] = value
        elif not key and value != "_self_":
            base = _read(folders, group, value)
            recipe.options = base.options | recipe.options
            recipe.settings += base.settings
    content: Any = tree.raw(loaded)
    recipe.settings += [
        path for path, _ in tree.leaves(content) if path.split("[")[0] != "defaults"
    ]
    return recipe


def _defaults(loaded: DictConfig) -> Iterator[tuple[str, str]]:
    """Entries of a defaults list; another YAML of the same folder has an empty key."""
    listed = loaded.get("defaults")
    for entry in listed if isinstance(listed, ListConfig) else ():
        if isinstance(entry, DictConfig):
            yield from ((str(key), str(value)) for key, value in entry.items())
        else:
            yield "", str(entry)


def _load(folders: Sequence[Path], group: str, name: str) -> DictConfig | None:
    """The first YAML of that name; None where there is none, as for a list of options."""
    for folder in folders:
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            loaded = OmegaConf.load(path)
            return loaded if isinstance(loaded, DictConfig) else None
    return None


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")
