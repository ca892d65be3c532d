"""Finds what YAML reads otherwise than it looks, in a user's own files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_LARGEST = 1 << 20  # bytes of a file that is looked at
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_CLOCK = re.compile(r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+")
_WORDS = re.compile(r"yes|no|on|off|Yes|No|On|Off|YES|NO|ON|OFF")


def surprises(directory: Path) -> Iterator[str]:
    """`exp.yaml:3: 010 means 8 in YAML (octal); …`, for every YAML file below `directory`."""
    for path in sorted(directory.rglob("*.yaml")):
        try:
            if path.stat().st_size <= _LARGEST:
                yield from _in_text(path, path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # composing it says what is wrong, if it is used at all


def _in_text(path: Path, text: str) -> Iterator[str]:
    for token in yaml.scan(text):
        if isinstance(token, yaml.ScalarToken) and token.plain:
            meaning = _meaning(token.value)
            if meaning:
                where = f"{path}:{token.start_mark.line + 1}"
                yield f"{where}: {token.value} means {meaning}; quote it to keep it as text."


def _meaning(text: str) -> str:
    """What YAML makes of a word that looks like something else."""
    if _OCTAL.fullmatch(text):
        plain = text.replace("_", "")
        return f"{int(plain, 8)} in YAML (octal); write {int(plain)}"
    if _CLOCK.fullmatch(text):
        return f"{yaml.safe_load(text)} in YAML (base 60)"
    if _WORDS.fullmatch(text):
        return f"{str(yaml.safe_load(text)).lower()} in YAML"
    return ""
