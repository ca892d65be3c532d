"""Text as bytes: every byte is a token, every window of them a sample.

The default is Python's own standard library, which is there wherever progtrain runs; it is the
same on every machine with the same Python.
"""

from __future__ import annotations

import glob
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from progtrain.data.sets import Sets, Split, Tokens
from progtrain.errors import ConfigError, did_you_mean, require

BYTES = 256  # tokens
_EMBEDDED = 2_000_000  # bytes of the standard library


@dataclass(frozen=True)
class Text:
    """Contiguous parts in this order: training, validation, test; no byte is in two of them."""

    path: str | None = None  # a file, a folder or a pattern; null: Python's standard library
    length: int = 128  # bytes that a sample reads
    shape: Sequence[int] = (128,)
    num_classes: int = BYTES
    bytes: int | None = None  # read so many from the beginning; null: all
    validation: float = 0.1  # share of the bytes
    test: float = 0.0  # share of the bytes, the last ones; 0: no test set

    def __post_init__(self) -> None:
        require(self.length >= 1, "length", self.length, "a whole number >= 1")
        fits = list(self.shape) == [self.length]
        require(fits, "shape", list(self.shape), f"[{self.length}]", "Set data.length instead.")
        enough = self.num_classes >= BYTES
        require(enough, "num_classes", self.num_classes, f"{BYTES} or more, one a byte")
        good = self.bytes is None or self.bytes >= 1
        require(good, "bytes", self.bytes, "a whole number >= 1, or null for all")
        require(0 < self.validation < 1, "validation", self.validation, "a share in (0, 1)")
        leaves = self.test >= 0 and self.validation + self.test < 1
        allowed = f"a share in [0, {1 - self.validation:g}), which leaves some to train on"
        require(leaves, "test", self.test, allowed)

    def load(self) -> Sets:
        text_N = _read(self.path, self.bytes)
        whole = len(text_N)
        end = whole - round(whole * self.test)
        cut = end - round(whole * self.validation)
        parts = {"training": text_N[:cut], "validation": text_N[cut:end]}
        parts |= {"test": text_N[end:]} if self.test else {}
        for name, part in parts.items():
            self._check_length(name, len(part), whole)
        splits = {name: windows(part, self.length) for name, part in parts.items()}
        return Sets(splits["training"], splits["validation"], splits.get("test"), Tokens())

    def _check_length(self, name: str, size: int, whole: int) -> None:
        if size <= self.length:
            share = {"validation": self.validation, "test": self.test}.get(name)
            told = f" (data.{name}={share:g} of {whole:,})" if share else ""
            raise ConfigError(
                f"The text is too short: its {name} part has {size:,} bytes{told}, a sample needs"
                f" data.length + 1 = {self.length + 1}. Use a longer text (data.path)"
                + (f", data.length={size - 1} or less." if size > 1 else ".")
            )


def windows(text_N: Tensor, length: int) -> Split:
    """Windows of `length + 1` bytes side by side: x all but the last, y all but the first.

    Both are views of the text, so a text takes its own size in memory.
    """
    count = len(text_N) // (length + 1)
    window_NL = text_N[: count * (length + 1)].view(count, length + 1)
    return Split(window_NL[:, :-1], window_NL[:, 1:])


def _read(path: str | None, limit: int | None) -> Tensor:
    """The first `limit` bytes of all files, one behind the other, as uint8."""
    files = standard_library() if path is None else _files(path)
    if path is None:
        limit = min(limit or _EMBEDDED, _EMBEDDED)
    text = bytearray()
    for file in files:
        if limit is None or len(text) < limit:
            try:
                with file.open("rb") as opened:
                    text += opened.read(-1 if limit is None else limit - len(text))
            except OSError as error:
                raise ConfigError(f"data.path: cannot read {file}: {error.strerror}.") from None
    if not text and path is None:
        raise ConfigError("This Python's standard library has no source files. Set data.path.")
    if not text:
        raise ConfigError(f"data.path={path} holds no text: {len(files)} files of 0 bytes.")
    return torch.frombuffer(text, dtype=torch.uint8)


def standard_library() -> list[Path]:
    """The modules of Python's standard library that are single files, by name."""
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def _files(path: str) -> list[Path]:
    """What `data.path` names, in the order of their names; hidden files are left out."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [f for f in place.rglob("*") if not _hidden(f.relative_to(place)) and f.is_file()]
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True)]
        found = [file for file in found if file.is_file()]
    if not found:
        raise ConfigError(_not_found(path, place))
    return sorted(found)


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _not_found(path: str, place: Path) -> str:
    if place.is_dir():
        return f"data.path={path} is a folder without files."
    siblings = [file.name for file in place.parent.iterdir()] if place.parent.is_dir() else []
    near = did_you_mean(place.name, siblings)
    return (
        f"No text in data.path={path} (looked from {Path.cwd()}).{near} It takes a file, a folder"
        " or a pattern such as 'books/*.txt'; data.path=null is Python's standard library."
    )
