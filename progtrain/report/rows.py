"""Files of runs, read back: what is damaged or cut short is left out, as runs may be killed.

No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file; one that a power cut has halved is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def read_settings(path: Path) -> dict[str, Any]:
    """Every setting of a YAML file by its full name, lists whole; empty where it cannot be read."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return dict(_leaves(tree, "")) if isinstance(tree, dict) else {}


def _leaves(node: object, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, inner in node.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif name:
        yield name, node


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def number_in(told: Mapping[str, object], name: str) -> float | None:
    return number(told.get(name))
