"""Tokens of a text on disk: made once for each content and way of making them, then mapped.

    <cache>/tokens/<key>/about.json        the codec, sizes, what was counted; written last
    <cache>/tokens/<key>/<part>.bin        tokens, one behind the other
    <cache>/sources/<key>                  the digest of files that have not changed since

A folder appears in one piece by a rename, so of two runs that make it at once one wins, and what a
killed run leaves behind is never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from progtrain.data.codec import Codec, from_json, token_type
from progtrain.data.codec_characters import Characters, code_points, utf8_lengths
from progtrain.data.source import Source
from progtrain.errors import EnvironmentProblem

_VERSION = 1  # of the files; another one makes them anew
_ABOUT = "about.json"
_SETTLED = 2.0  # seconds that a file must be unchanged before its digest is kept


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `stop` of a text."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class Stored:
    """What lies in a folder of tokens."""

    folder: Path
    codec: Codec
    bytes: Mapping[str, int]  # of UTF-8, of each part
    exact: bool  # whether `Codec.token_bytes` adds up to these
    unknown: Mapping[str, int]  # tokens of each part that the training part does not know

    def tokens(self, part: str) -> Tensor:
        """The tokens of a part (N,), mapped from the disk."""
        return mapped(self.folder / f"{part}.bin", token_type(self.codec.size))

    def lost(self, part: str) -> NDArray[np.int64]:
        """Of each unknown token of a part: its place, and its bytes (2, U)."""
        file = self.folder / f"{part}.unknown.npy"
        return np.load(file) if file.is_file() else np.zeros((2, 0), np.int64)


def mapped(file: Path, kind: type[np.generic], count: int | None = None) -> Tensor:
    """The first `count` numbers of a file; read when they are looked at, never written."""
    return torch.from_numpy(np.memmap(file, kind, "c", shape=None if count is None else (count,)))


def cache_folder(cache: str | None) -> Path:
    """Where tokens are kept: what the user says, or the user's cache directory."""
    if cache is not None:
        return Path(cache).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "progtrain"


def stored(
    cache: Path, parts: Mapping[str, Part], recipe: Mapping[str, Any], codec: Callable[[], Codec]
) -> Stored:
    """Tokens of `parts`, made by what `codec` gives unless they are there.

    `recipe` says how the codec is made: with the contents of the texts it is the key.
    """
    told = {name: (digest(p.source, cache), p.start, p.stop) for name, p in parts.items()}
    key = _hash({"version": _VERSION, "recipe": dict(recipe), "parts": told})
    folder = cache / "tokens" / key
    found = _opened(folder)
    if found is None:
        with _writable(cache):
            _made(folder, lambda place: _write(place, parts, codec()))
        found = _opened(folder)
    if found is None:
        raise EnvironmentProblem(f"{folder} cannot be read back. Set data.cache to another folder.")
    return found


def joined(cache: Path, source: Source) -> Path:
    """The bytes of several files as one."""
    folder = cache / "tokens" / _hash({"version": _VERSION, "joined": digest(source, cache)})
    file = folder / "joined.bin"

    def write(place: Path) -> None:
        with (place / file.name).open("wb") as opened:
            for piece in source.pieces():
                opened.write(piece)

    if not file.is_file() or file.stat().st_size != source.size:
        with _writable(cache):
            _made(folder, write)
    return file


def digest(source: Source, cache: Path) -> str:
    """SHA-256 of a text; files that have not changed since are not read again.

    Not changed: the same path, file number, size and time of change.
    """
    stats = [(str(f.absolute()), f.stat()) for f in source.files]
    told = [(path, s.st_ino, s.st_size, s.st_mtime_ns) for path, s in stats]
    memo = cache / "sources" / _hash([told, source.limit])
    if memo.is_file() and len(known := memo.read_text()) == 64:
        return known
    found = source.digest()
    newest = max(s.st_mtime for _, s in stats)
    if newest < time.time() - _SETTLED:
        with _writable(cache):
            memo.parent.mkdir(parents=True, exist_ok=True)
            part = memo.with_name(f".{memo.name}.{uuid4().hex}")
            part.write_text(found)
            part.replace(memo)
    return found


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _opened(folder: Path) -> Stored | None:
    """A folder that is whole, else None."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in about["sizes"]}
    except (OSError, ValueError, KeyError):
        return None
    if sizes != about["sizes"]:
        return None
    codec = from_json(about["codec"])
    return Stored(folder, codec, about["bytes"], about["exact"], about["unknown"])


def _made(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, which then takes its name; another run may have been first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid4().hex}")
    part.mkdir()
    try:
        write(part)
        try:
            part.rename(folder)
        except OSError:
            if _opened(folder) is None:  # damaged, or what another version has written
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(place: Path, parts: Mapping[str, Part], codec: Codec) -> None:
    """Tokens of every part, and what is to be known about them."""
    counts, exact = dict[str, int](), True
    each = codec.token_bytes()
    for name, part in parts.items():
        known, lost = _write_part(place, name, part, codec, each)
        counts[name] = lost.shape[1]
        exact &= known + int(lost[1].sum()) == part.stop - part.start
    if any(counts.values()) and isinstance(codec, Characters):
        codec = Characters(codec.vocabulary, unknown=True)
    about = {
        "sizes": {file.name: file.stat().st_size for file in place.iterdir()},
        "codec": codec.to_json(),
        "bytes": {name: part.stop - part.start for name, part in parts.items()},
        "exact": exact,
        "unknown": counts,
    }
    (place / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def _write_part(
    place: Path, name: str, part: Part, codec: Codec, each: NDArray[np.int64]
) -> tuple[int, NDArray[np.int64]]:
    """Bytes of the tokens that the codec knows, and places and bytes of the others (2, U)."""
    letters = part.source.letters(part.start, part.stop)
    known, begins, lost = 0, 0, [np.zeros((2, 0), np.int64)]
    with (place / f"{name}.bin").open("wb") as file:
        if isinstance(codec, Characters):
            each = np.append(each[: len(codec.vocabulary)], 0)
            for piece in letters:
                tokens = next(iter(codec.encoded([piece])))
                where = np.flatnonzero(tokens == len(codec.vocabulary))
                points = code_points(piece)[where]
                lost.append(np.stack([where + begins, utf8_lengths(points)]))
                tokens.tofile(file)
                known, begins = known + int(each[tokens].sum()), begins + len(tokens)
        else:
            for tokens in codec.encoded(letters):
                tokens.tofile(file)
                known += int(each[tokens].sum())
    found = np.concatenate(lost, 1)
    if found.shape[1]:
        np.save(place / f"{name}.unknown.npy", found)
    return known, found


@contextmanager
def _writable(cache: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(
            f"Cannot keep tokens in {cache}: {error.strerror}. Set data.cache to a folder that can"
            " be written and has the room."
        ) from None
