"""Every byte of UTF-8 is a token (data.tokens=bytes)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from progtrain.data.codec import TokenArray
from progtrain.run import Json

BYTES = 256  # tokens


@dataclass(frozen=True)
class Bytes:
    """256 tokens, whatever the text."""

    @property
    def size(self) -> int:
        return BYTES

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens of 256 and more, which a larger head may give, show as U+FFFD like bad bytes."""
        known = bytes(token if token < BYTES else 0xFF for token in tokens)
        return known.decode(errors="replace")

    def encoded(self, pieces: Iterable[str]) -> Iterator[TokenArray]:
        for piece in pieces:
            yield np.frombuffer(piece.encode(), np.uint8)

    def token_bytes(self) -> NDArray[np.int64]:
        return np.ones(BYTES, np.int64)

    def to_json(self) -> Json:
        return {"kind": "bytes"}
