"""Walks a composed configuration as plain data, without resolving what it refers to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)

from progtrain.errors import ProgtrainError

_REFERENCE = re.compile(r"\$\{([\w./\[\]]+)\}")
_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*([^},]+)")
_AT_RUN_TIME = re.compile(r"\$\{(hydra|now|python_version)[:.]")


def raw(config: DictConfig | ListConfig) -> object:
    """Plain dicts and lists, references and `???` still in them."""
    return OmegaConf.to_container(config, resolve=False)


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that is no dict or list, with its full name."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, tree


def targets(tree: object, path: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """Every node with a `_target_`, inner ones first."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from targets(value, f"{path}.{key}" if path else str(key))
        if "_target_" in tree:
            yield path, tree
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from targets(value, f"{path}[{index}]")


def names(tree: object, path: str = "") -> Iterator[str]:
    """Every setting that a user can name, groups of settings included."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not str(key).startswith("_"):
                name = f"{path}.{key}" if path else str(key)
                yield name
                yield from names(value, name)


def value_at(config: DictConfig, path: str) -> object:
    """The value with every reference followed, as plain data."""
    value = OmegaConf.select(config, path)
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True)
    return value


def references(tree: object) -> frozenset[str]:
    """Absolute names that values of `tree` refer to."""
    texts = [value for _, value in leaves(tree) if isinstance(value, str)]
    return frozenset(name for text in texts for name in _REFERENCE.findall(text))


def unresolved(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Values that are missing or lead nowhere: `(name, message)`, told once where they begin."""
    lost: dict[str, str] = {}
    written: dict[str, str] = {}
    missing = set[str]()
    for path, value in leaves(raw(config)):
        if value == "???":
            missing.add(path)
            yield path, f"{path} needs a value: write {path}=<value>."
        elif isinstance(value, str) and "${" in value and not _AT_RUN_TIME.search(value):
            try:
                value_at(config, path)
            except (OmegaConfBaseException, RecursionError) as error:
                lost[path], written[path] = _reference_problem(path, value, error), value
    for path, problem in lost.items():
        leads_to = _REFERENCE.findall(written[path])
        known = {*lost, *missing}
        begins = problem.endswith("each other.") or not any(name in known for name in leads_to)
        yield path, problem if begins else ""


def _reference_problem(path: str, value: str, error: Exception) -> str:
    leads_to = _REFERENCE.findall(value)
    told = next((each for each in _causes(error) if isinstance(each, ProgtrainError)), None)
    if told is not None:
        return str(told)
    if "recursi" in f"{type(error)} {error}".lower():
        return f"{' and '.join([path, *leads_to])} refer to each other."
    if isinstance(error, InterpolationKeyError | InterpolationToMissingValueError):
        return f"{path} refers to {(leads_to or [value])[0]!r}, which does not exist."
    variable = _ENVIRONMENT.search(value)
    if variable and "not found" in str(error):
        return f"{path}: environment variable {variable.group(1).strip()} is not set."
    return f"{path} = {value!r} cannot be resolved: {str(error).splitlines()[0]}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield cause
        yield from _causes(cause)


@dataclass(frozen=True)
class Place:
    """Where a dotted name leads."""

    exists: bool
    value: object = None
    holder: str = ""  # the deepest part of the name that exists
    inside_target: bool = False  # whether the holder is, or is in, a node with a `_target_`
    alias: str = ""  # a part of the name that only refers to another node


def find(config: DictConfig, name: str) -> Place:
    """Follow a dotted name as far as it goes."""
    node: Any = config
    holder, inside = "", False
    for part in (part for part in re.split(r"[.\[\]]", name) if part):
        inside = inside or (isinstance(node, DictConfig) and "_target_" in node)
        key = _key(node, part)
        if key is None:
            return Place(False, node, holder, inside)
        here = f"{holder}.{part}".lstrip(".")
        if OmegaConf.is_interpolation(node, key):
            inner = here != name
            return Place(not inner, None, holder, inside, alias=here if inner else "")
        node = None if OmegaConf.is_missing(node, key) else node[key]
        holder = here
    return Place(True, node, holder, inside)


def _key(node: object, part: str) -> Any:
    """`part` as a key of `node`, or None."""
    if isinstance(node, DictConfig):
        return next((key for key in node if str(key) == part), None)
    if isinstance(node, ListConfig) and part.isdigit() and int(part) < len(node):
        return int(part)
    return None
