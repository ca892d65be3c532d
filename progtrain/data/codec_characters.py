"""Every character that the training text holds is a token (data.tokens=characters)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from progtrain.data.codec import TokenArray, token_type
from progtrain.errors import ConfigError
from progtrain.run import Json

_CODE_POINTS = 0x110000
UNKNOWN = "\ufffd"


@dataclass(frozen=True)
class Characters:
    """Tokens in the order of their code points, then one for all others where `unknown`."""

    vocabulary: str  # every character once, sorted
    unknown: bool = False

    @staticmethod
    def of(pieces: Iterable[str]) -> Characters:
        """The characters of a text."""
        seen = np.zeros(_CODE_POINTS, np.bool_)
        for piece in pieces:
            seen[code_points(piece)] = True
        return Characters("".join(map(chr, np.flatnonzero(seen))))

    @property
    def size(self) -> int:
        return len(self.vocabulary) + self.unknown

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """Token of each code point; −1 where it has none."""
        table = np.full(_CODE_POINTS, len(self.vocabulary) if self.unknown else -1, np.int64)
        table[code_points(self.vocabulary)] = np.arange(len(self.vocabulary))
        return table

    def encode(self, text: str) -> list[int]:
        tokens = self._table[code_points(text)]
        if (tokens < 0).any():
            lost = text[int((tokens < 0).argmax())]
            raise ConfigError(
                f"The character {lost!r} (U+{ord(lost):04X}) is none of the {self.size} that the"
                " training text holds. Leave it out, or train with data.tokens=bytes."
            )
        return tokens.tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        known = len(self.vocabulary)
        return "".join(self.vocabulary[t] if 0 <= t < known else UNKNOWN for t in tokens)

    def encoded(self, pieces: Iterable[str]) -> Iterator[TokenArray]:
        """Characters without a token come as the token `size`, which needs `unknown` then."""
        table = np.where(self._table < 0, len(self.vocabulary), self._table)
        table = table.astype(token_type(len(self.vocabulary) + 1))
        for piece in pieces:
            yield table[code_points(piece)]

    def token_bytes(self) -> NDArray[np.int64]:
        """Those of `unknown` differ, so they count as 0 here and are counted apart."""
        known = utf8_lengths(code_points(self.vocabulary))
        return np.append(known, 0) if self.unknown else known

    def to_json(self) -> Json:
        return {"kind": "characters", "vocabulary": self.vocabulary, "unknown": self.unknown}


def code_points(text: str) -> NDArray[np.uint32]:
    """Unicode's number of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def utf8_lengths(points: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Bytes that UTF-8 needs for each code point."""
    return np.searchsorted(np.array([0x80, 0x800, 0x10000]), points, side="right") + 1
