"""Text to tokens and back: what a codec is, and how a stored one is read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from progtrain.errors import CheckpointError
from progtrain.run import Json

TokenArray: TypeAlias = NDArray[np.unsignedinteger | np.signedinteger]


class Codec(Protocol):
    """Tokens are whole numbers from 0 to `size` − 1."""

    @property
    def size(self) -> int:
        """How many tokens there are: the classes of a network that predicts them."""
        ...

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; raises `ConfigError` for a character that has none."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no text on its own shows as U+FFFD."""
        ...

    def encoded(self, pieces: Iterable[str]) -> Iterator[TokenArray]:
        """Tokens of a long text that comes in pieces, in their order."""
        ...

    def token_bytes(self) -> NDArray[np.int64]:
        """Bytes of UTF-8 that each token stands for (size,)."""
        ...

    def to_json(self) -> Json:
        """All of it as plain data, for `from_json`."""
        ...


def from_json(document: Json) -> Codec:
    """The codec that `to_json` has written; `CheckpointError` for anything else."""
    from progtrain.data.codec_bpe import BPE
    from progtrain.data.codec_bytes import Bytes
    from progtrain.data.codec_characters import Characters

    match document:
        case {"kind": "bytes"}:
            return Bytes()
        case {"kind": "characters", "vocabulary": str(vocabulary), "unknown": bool(unknown)}:
            return Characters(vocabulary, unknown)
        case {"kind": "bpe", "tokenizer": str(tokenizer)}:
            return BPE(tokenizer)
        case _:
            known = "bytes, characters or bpe"
            raise CheckpointError(f"A stored codec is none that progtrain knows ({known}).")


def token_type(size: int) -> type[np.uint8] | type[np.uint16] | type[np.int32]:
    """The smallest type for `size` tokens that torch can index."""
    return np.uint8 if size <= 2**8 else np.uint16 if size <= 2**16 else np.int32
