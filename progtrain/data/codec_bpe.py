"""Byte pair encoding (Sennrich et al., arXiv 1508.07909) over bytes, by the library tokenizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progtrain.data.codec import TokenArray, token_type
from progtrain.errors import ConfigError, EnvironmentProblem
from progtrain.run import Json

_ENCODED_AT_ONCE = 2**20  # characters, cut behind a line


@dataclass(frozen=True)
class BPE:
    """A tokenizer as the text of its `tokenizer.json`."""

    tokenizer: str

    @staticmethod
    def trained(pieces: Iterable[str], size: int) -> BPE:
        """At most `size` tokens: 256 bytes, and the pairs that a text joins most often."""
        tokenizers = library()
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        )
        made.train_from_iterator(lines_of(pieces), trainer)
        return BPE(made.to_str())

    @staticmethod
    def loaded(path: str) -> BPE:
        """A `tokenizer.json`, of whatever kind the library knows."""
        tokenizers = library()
        place = Path(path).expanduser()
        try:
            text = place.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"data.tokenizer: cannot read {path}: {reason}.") from None
        try:
            return BPE(tokenizers.Tokenizer.from_str(text).to_str())
        except Exception as error:  # the library raises no class of its own
            told = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"data.tokenizer={path} is no tokenizer.json of the library tokenizers: {told}."
            ) from None

    @cached_property
    def _made(self) -> Any:
        made = library().Tokenizer.from_str(self.tokenizer)
        made.no_truncation()
        made.no_padding()
        return made

    @property
    def size(self) -> int:
        """One more than the largest token, where numbers are left out."""
        return self._size

    @cached_property
    def _size(self) -> int:
        return max(self._made.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        return self._made.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        known = [token for token in tokens if token < self.size]
        return self._made.decode(known, skip_special_tokens=False)

    def encoded(self, pieces: Iterable[str]) -> Iterator[TokenArray]:
        """Parts that end behind a line are encoded each by itself, several at once."""
        kind = token_type(self.size)
        for lines in lines_of(pieces):
            yield np.array(self.encode(lines), kind)

    def token_bytes(self) -> NDArray[np.int64]:
        """Of tokens over bytes, where each letter of a token stands for one."""
        sizes = np.zeros(self.size, np.int64)
        for word, token in self._made.get_vocab(with_added_tokens=True).items():
            sizes[token] = len(word)
        return sizes

    def to_json(self) -> Json:
        return {"kind": "bpe", "tokenizer": self.tokenizer}


def lines_of(pieces: Iterable[str], size: int = _ENCODED_AT_ONCE) -> Iterator[str]:
    """The same text in parts of `size` characters or a little more, cut behind a line's end.

    A line that is longer than `size` is cut where a piece ends.
    """
    rest = ""
    for piece in pieces:
        for start in range(0, len(piece), size):
            rest += piece[start : start + size]
            cut = rest.rfind("\n") + 1 or (len(rest) if len(rest) >= size else 0)
            if cut:
                yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def library() -> Any:
    """The library, or how to get it."""
    try:
        return import_module("tokenizers")
    except ImportError:
        raise EnvironmentProblem(
            "data.tokens=bpe needs the library tokenizers, which is not installed:"
            " pip install 'progtrain[bpe]'."
        ) from None
