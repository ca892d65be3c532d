"""Holds values from YAML or the command line against the annotations of a signature.

Annotations are read as text, so nothing has to be importable for it; one that is no plain type
(a Protocol, a Callable) takes anything.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MOST = 10**12  # of any whole number; more is a slip of the finger
_OPTIONAL = re.compile(r"^(?:typing\.)?Optional\[(.*)\]$")
_UNION = re.compile(r"^(?:typing\.)?Union\[(.*)\]$")
_LISTS = re.compile(r"^(?:[\w.]+\.)?(list|List|tuple|Tuple|Sequence)(?:\[(.*)\])?$")
_DICTS = re.compile(r"^(?:[\w.]+\.)?(dict|Dict|Mapping)(?:\[.*\])?$")
_WORDS = {"int": "a whole number", "float": "a finite number", "bool": "true or false"}


@dataclass(frozen=True)
class Verdict:
    """`value` in the declared type, or what would be `allowed` instead."""

    value: object
    allowed: str = ""  # empty where the value is right
    hint: str = ""


def shown(value: object) -> str:
    """A value as a user would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def fit(value: object, annotation: str) -> Verdict:
    """`value` as the annotation asks for it: `16.0` and `1e3` are whole numbers."""
    kinds = alternatives(annotation)
    if value is None:
        if "None" in kinds or any(_is_open(kind) for kind in kinds):
            return Verdict(None)
        return Verdict(None, _allowed(kinds))
    verdicts = [_fit_one(value, kind) for kind in kinds if kind != "None"]
    if not verdicts:
        return Verdict(value)
    same = [verdict for verdict in verdicts if not verdict.allowed and verdict.value is value]
    good = same or [verdict for verdict in verdicts if not verdict.allowed]
    if good:
        return good[0]
    hint = next((verdict.hint for verdict in verdicts if verdict.hint), "")
    if hint:
        return next(verdict for verdict in verdicts if verdict.hint)
    return Verdict(value, _allowed(kinds))


def alternatives(annotation: str) -> tuple[str, ...]:
    """`int | None` as `("int", "None")`."""
    text = annotation.strip().strip("'\"")
    optional, union = _OPTIONAL.match(text), _UNION.match(text)
    if optional:
        return (*alternatives(optional.group(1)), "None")
    if union:
        return tuple(kind for part in _split(union.group(1), ",") for kind in alternatives(part))
    return tuple(part.strip() for part in _split(text, "|"))


def _split(text: str, separator: str) -> list[str]:
    """Split outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(") - (letter in "])")
        if letter == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _is_open(kind: str) -> bool:
    """Whether the annotation is none that can be checked."""
    plain = kind in ("int", "float", "bool", "str", "None")
    return not (plain or _LISTS.match(kind) or _DICTS.match(kind))


def _allowed(kinds: tuple[str, ...]) -> str:
    words = list(dict.fromkeys(_word(kind) for kind in kinds if kind != "None"))
    return " or ".join([*words, "null"] if "None" in kinds else words)


def _word(kind: str) -> str:
    sequence = _LISTS.match(kind)
    if sequence:
        inner = (_split(sequence.group(2) or "", ",")[0]).strip()
        plural = {"int": " of whole numbers", "float": " of numbers", "str": " of names"}
        return f"a list{plural.get(inner, '')}"
    if _DICTS.match(kind):
        return "settings such as {name: value}"
    return _WORDS.get(kind, "text")


def _fit_one(value: object, kind: str) -> Verdict:
    match kind:
        case "int":
            return _whole(value)
        case "float":
            return Verdict(value, "" if _finite(value) is not None else _WORDS[kind])
        case "bool":
            return Verdict(value, "" if isinstance(value, bool) else _WORDS[kind])
        case "str":
            return _text(value)
        case _:
            pass
    sequence = _LISTS.match(kind)
    if sequence:
        return _listed(value, kind, sequence.group(2) or "")
    if _DICTS.match(kind):
        return Verdict(value, "" if isinstance(value, dict) else _word(kind))
    return Verdict(value)


def _whole(value: object) -> Verdict:
    number = _finite(value)
    if number is None or number != int(number):
        return Verdict(value, _WORDS["int"])
    if abs(number) > MOST:
        return Verdict(value, f"at most {MOST:.0e}", "Did you mean fewer digits?")
    return Verdict(value if isinstance(value, int) else int(number))


def _finite(value: object) -> int | float | None:
    """`value` if it is a number that can be counted with."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _text(value: object) -> Verdict:
    """Numbers are text that looks like one; the class that asked for text reads it."""
    if isinstance(value, bool | dict | list):
        return Verdict(value, "text")
    return Verdict(value if isinstance(value, str) else str(value))


def _listed(value: object, kind: str, inner: str) -> Verdict:
    if not isinstance(value, list):
        return Verdict(value, _word(kind))
    element = _split(inner, ",")[0].strip()
    if not element or _is_open(element):
        return Verdict(value)
    verdicts = [fit(item, element) for item in value]
    if any(verdict.allowed for verdict in verdicts):
        return Verdict(value, _word(kind))
    fitted = [verdict.value for verdict in verdicts]
    return Verdict(value if fitted == value and _same_types(fitted, value) else fitted)


def _same_types(left: list[object], right: list[object]) -> bool:
    return all(type(a) is type(b) for a, b in zip(left, right, strict=True))
