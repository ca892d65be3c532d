"""Text as tokens: bytes, characters or byte pairs; every window of them is a sample.

Without a path it is Python's own standard library, which is there wherever progtrain runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progtrain.data.codec import Codec
from progtrain.data.codec_bpe import BPE, library
from progtrain.data.codec_bytes import BYTES, Bytes
from progtrain.data.codec_characters import Characters
from progtrain.data.sets import Sets, Split, Tokens
from progtrain.data.source import Source, source
from progtrain.data.token_cache import Part, Stored, cache_folder, digest, joined, mapped, stored
from progtrain.errors import ConfigError, require

KINDS = ("bytes", "characters", "bpe")
_IN_MEMORY = 2**26  # bytes of a text that is read as it is; a longer one is mapped
_COUNTED = 2**24  # tokens that are counted at once


@dataclass(frozen=True)
class Text:
    """Contiguous parts in this order: training, validation, test; nothing is in two of them."""

    path: str | None = None  # a file, a folder or a pattern; null: Python's standard library
    length: int = 128  # tokens that a sample reads
    shape: Sequence[int] = (128,)
    num_classes: int | None = None  # null: as many as there are tokens
    bytes: int | None = None  # read so many from the beginning; null: all
    validation: float = 0.1  # share of the bytes
    test: float = 0.0  # share of the bytes, the last ones; 0: no test set
    tokens: str = "bytes"  # bytes, characters, bpe
    vocabulary: int = 1024  # most tokens of bpe
    tokenizer: str | None = None  # a tokenizer.json for bpe; null: trained on the training part
    validation_path: str | None = None  # a text to validate on in place of that share
    cache: str | None = None  # where tokens are kept; null: the user's cache directory

    def __post_init__(self) -> None:
        require(self.tokens in KINDS, "tokens", self.tokens, "one of " + ", ".join(KINDS))
        require(self.length >= 1, "length", self.length, "a whole number >= 1")
        fits = list(self.shape) == [self.length]
        require(fits, "shape", list(self.shape), f"[{self.length}]", "Set data.length instead.")
        least = BYTES if self.tokens == "bytes" else 1
        enough = self.num_classes is None or self.num_classes >= least
        allowed = f"{least} or more, or null for one a token"
        require(enough, "num_classes", self.num_classes, allowed)
        good = BYTES < self.vocabulary <= 2**24
        require(good, "vocabulary", self.vocabulary, f"a whole number from {BYTES + 1} to 2^24")
        alone = self.tokenizer is None or self.tokens == "bpe"
        require(alone, "tokenizer", self.tokenizer, f"null with data.tokens={self.tokens}",
                "Set data.tokens=bpe.")  # fmt: skip
        good = self.bytes is None or self.bytes >= 1
        require(good, "bytes", self.bytes, "a whole number >= 1, or null for all")
        require(0 < self.validation < 1, "validation", self.validation, "a share in (0, 1)")
        share = self._validation_share
        leaves = self.test >= 0 and share + self.test < 1
        allowed = f"a share in [0, {1 - share:g}), which leaves some to train on"
        require(leaves, "test", self.test, allowed)

    @property
    def _validation_share(self) -> float:
        return self.validation if self.validation_path is None else 0.0

    def count_classes(self) -> int:
        """Tokens of the vocabulary; what must be read or trained for it is kept for `load`."""
        return BYTES if self.tokens == "bytes" else self._stored(self._parts()).codec.size

    def load(self) -> Sets:
        parts = self._parts()
        if self.tokens == "bytes":
            return self._loaded(parts, {name: _bytes(p, self) for name, p in parts.items()}, None)
        kept = self._stored(parts)
        return self._loaded(parts, {name: kept.tokens(name) for name in parts}, kept)

    def _parts(self) -> dict[str, Part]:
        """What is read for what; a character of several bytes is not cut."""
        text = source(self.path, self.bytes)
        whole = text.size
        end = whole - round(whole * self.test)
        cut = end - round(whole * self._validation_share)
        if self.tokens != "bytes":
            cut, end = text.whole_letter(cut), text.whole_letter(end)
        parts = {"training": Part(text, 0, cut), "validation": Part(text, cut, end)}
        if self.validation_path is not None:
            other = source(self.validation_path, None, "data.validation_path")
            parts["validation"] = Part(other, 0, other.size)
        return parts | ({"test": Part(text, end, whole)} if self.test else {})

    def _stored(self, parts: Mapping[str, Part]) -> Stored:
        """Tokens of characters or of bpe, from the cache or made now."""
        training = parts["training"]

        def made() -> Codec:
            if self.tokenizer is not None:
                return BPE.loaded(self.tokenizer)
            letters = training.source.letters(training.start, training.stop)
            if self.tokens == "characters":
                return Characters.of(letters)
            return BPE.trained(letters, self.vocabulary)

        return stored(cache_folder(self.cache), parts, self._recipe(), made)

    def _recipe(self) -> dict[str, Any]:
        """What decides on the tokens, beside the text."""
        if self.tokens == "characters":
            return {"tokens": "characters"}
        version = str(library().__version__)
        if self.tokenizer is None:
            return {"tokens": "bpe", "vocabulary": self.vocabulary, "library": version}
        text = BPE.loaded(self.tokenizer).tokenizer
        return {"tokens": "bpe", "tokenizer": text, "library": version}

    def _loaded(
        self, parts: Mapping[str, Part], tokens: Mapping[str, Tensor], kept: Stored | None
    ) -> Sets:
        codec = kept.codec if kept else Bytes()
        if self.num_classes is not None and self.num_classes < codec.size:
            raise ConfigError(
                f"data.num_classes={self.num_classes} is less than the {codec.size} tokens of this"
                " text. Leave it out (null), which takes as many as there are."
            )
        for name, part in parts.items():
            self._check_length(name, len(tokens[name]), part)
        splits = {name: windows(each, self.length) for name, each in tokens.items()}
        return Sets(
            splits["training"],
            splits["validation"],
            splits.get("test"),
            Tokens(),
            codec=codec,
            bytes_per_target=bytes_per_target(tokens["validation"], self.length, kept),
            fingerprint=self._fingerprint(parts["training"], codec),
            notes=tuple(_notes(kept)) if kept else (),
        )

    def _fingerprint(self, training: Part, codec: Codec) -> str | None:
        """Of a text that is too long to be read at every start; None: of the samples."""
        if training.source.size <= _IN_MEMORY:
            return None
        content = digest(training.source, cache_folder(self.cache))
        told = (content, training.start, training.stop, self.length, codec.to_json())
        return sha256(repr(told).encode()).hexdigest()

    def _check_length(self, name: str, size: int, part: Part) -> None:
        if size <= self.length:
            share = {"validation": self._validation_share, "test": self.test}.get(name)
            told = f" (data.{name}={share:g} of {part.source.size:,})" if share else ""
            kind = "tokens" if self.tokens == "bpe" else self.tokens
            raise ConfigError(
                f"The text is too short: its {name} part has {size:,} {kind}{told}, a sample needs"
                f" data.length + 1 = {self.length + 1}. Use a longer text (data.path)"
                + (f", data.length={size - 1} or less." if size > 1 else ".")
            )


def windows(text_N: Tensor, length: int) -> Split:
    """Windows of `length + 1` tokens side by side: x all but the last, y all but the first.

    Both are views of the text, so a text takes its own size in memory.
    """
    count = len(text_N) // (length + 1)
    window_NL = text_N[: count * (length + 1)].view(count, length + 1)
    return Split(window_NL[:, :-1], window_NL[:, 1:])


def bytes_per_target(tokens_N: Tensor, length: int, kept: Stored | None) -> float:
    """Bytes of UTF-8 behind the targets of the validation part, for one target.

    Exact for bytes, characters and every tokenizer whose tokens stand for bytes; of others that of
    the whole part, first tokens of windows included.
    """
    if kept is None:
        return 1.0
    if not kept.exact:
        return kept.bytes["validation"] / len(tokens_N)
    each = torch.from_numpy(kept.codec.token_bytes())
    split = windows(tokens_N, length)
    step = math.ceil(_COUNTED / length)
    total = 0
    for start in range(0, len(split), step):
        total += int(each[split.y[start : start + step].long()].sum())
    place, size = kept.lost("validation")
    counts = (place % (length + 1) > 0) & (place < len(split) * (length + 1))
    return (total + int(size[counts].sum())) / split.y.numel()


def _bytes(part: Part, text: Text) -> Tensor:
    """The bytes of a part as uint8: in memory, or mapped where there are many of them."""
    whole: Source = part.source
    if whole.size <= _IN_MEMORY:
        held = bytearray(b"".join(whole.pieces(part.start, part.stop)))
        return torch.frombuffer(held, dtype=torch.uint8) if held else torch.empty(0)
    file: Path = whole.files[0]
    if len(whole.files) > 1:
        file = joined(cache_folder(text.cache), whole)
    return mapped(file, np.uint8, whole.size)[part.start : part.stop]


def _notes(kept: Stored) -> Iterator[str]:
    size, kind = kept.codec.size, "characters"
    if not isinstance(kept.codec, Characters):
        kind = "tokens of bytes and their pairs"
    yield f"data: {size:,} {kind}, so data.num_classes={size}"
    for name, count in kept.unknown.items():
        if count:
            yield (
                f"data: {count:,} characters of the {name} part are none of the training part; they"
                " count as one token, unknown"
            )
