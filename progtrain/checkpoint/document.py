"""JSON without its gaps: NaN and infinities survive, and nothing is read that was never written."""

from __future__ import annotations

import json
import math
from typing import cast

from progtrain.run import Json

MAX_DEPTH = 50  # lists and objects inside each other


def shown(text: str) -> str:
    """`text` for a message: control characters cannot reach the terminal."""
    return text if text.isprintable() else ascii(text)


def encode_document(document: Json) -> bytes:
    """Strict JSON bytes.

    `TypeError` for what JSON would silently change, `ValueError` for what could not be read again.
    """
    return json.dumps(_escape(document, MAX_DEPTH), allow_nan=False, indent=1).encode() + b"\n"


def decode_document(data: bytes) -> Json:
    """Inverse of `encode_document`; `ValueError` for anything it does not write."""
    return _unescape(parse(data, MAX_DEPTH + 1))


def _escape(value: Json, depth: int) -> Json:
    """Say NaN and infinities as `{"$float": "nan"}`; keys that begin with `$` get another one."""
    if depth < 0:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(float(value))}
        case list():
            return [_escape(item, depth - 1) for item in value]
        case dict():
            return {_escape_key(key): _escape(item, depth - 1) for key, item in value.items()}
        case _:
            raise TypeError(f"{type(value).__name__} is not JSON data")


def _escape_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key {key!r} is not a string; JSON would turn it into one")
    return f"${key}" if key.startswith("$") else key


def _unescape(value: Json) -> Json:
    match value:
        case {"$float": ("nan" | "inf" | "-inf") as word} if len(value) == 1:
            return float(word)
        case dict():
            return {_unescape_key(key): _unescape(item) for key, item in value.items()}
        case list():
            return [_unescape(item) for item in value]
        case _:
            return value


def _unescape_key(key: str) -> str:
    if key.startswith("$") and not key.startswith("$$"):
        raise ValueError(f"unknown key {shown(key)}")
    return key[1:] if key.startswith("$") else key


def parse(data: bytes, max_depth: int) -> Json:
    """Strict JSON: no repeated keys, no NaN, no deep nesting; `ValueError` otherwise."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is repeated")
        return dict(pairs)

    try:
        text = data.decode()
        value = cast(Json, json.loads(text, object_pairs_hook=unique, parse_constant=refuse))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_depth(value, max_depth)
    return value


def _check_depth(value: Json, depth: int) -> None:
    if depth < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth - 1)
