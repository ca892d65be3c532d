"""Text files one behind the other, read in pieces: which files, how long, what lies where.

The default is Python's own standard library, which is there wherever progtrain runs; it is the
same on every machine with the same Python.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import sysconfig
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from progtrain.errors import ConfigError, did_you_mean

PIECE = 2**24  # bytes that are read at once
_EMBEDDED = 2_000_000  # bytes of the standard library


@dataclass(frozen=True)
class Source:
    """The first `limit` bytes of `files`, in their order."""

    files: tuple[Path, ...]
    limit: int | None
    setting: str  # which names them, for messages

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each file that count."""
        left, sizes = self.limit, list[int]()
        for file in self.files:
            with _readable(file, self.setting):
                size = file.stat().st_size
            sizes.append(size if left is None else min(size, left))
            left = None if left is None else left - sizes[-1]
        return tuple(sizes)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def pieces(self, start: int = 0, stop: int | None = None, size: int = PIECE) -> Iterator[bytes]:
        """Bytes `start` to `stop` of the text, at most `size` at once."""
        stop, begins = self.size if stop is None else stop, 0
        for file, length in zip(self.files, self.sizes, strict=True):
            first, last = max(start, begins), min(stop, begins + length)
            if first < last:
                yield from self._piece(file, first - begins, last - begins, size)
            begins += length

    def _piece(self, file: Path, start: int, stop: int, size: int) -> Iterator[bytes]:
        with _readable(file, self.setting), file.open("rb") as opened:
            opened.seek(start)
            while start < stop:
                piece = opened.read(min(size, stop - start))
                if not piece:
                    raise ConfigError(
                        f"{self.setting}: {file} has become shorter while it is read."
                    )
                start += len(piece)
                yield piece

    def letters(self, start: int, stop: int, size: int = PIECE) -> Iterator[str]:
        """The same as characters; what is no UTF-8 is refused by file.

        Every file must be UTF-8 by itself; a character that `stop` cuts is left out.
        """
        decoder, begins = codecs.getincrementaldecoder("utf-8")(), 0
        for file, length in zip(self.files, self.sizes, strict=True):
            first, last = max(start, begins), min(stop, begins + length)
            begins, offset = begins + length, begins
            if first >= last:
                continue
            try:
                for piece in self._piece(file, first - offset, last - offset, size):
                    yield decoder.decode(piece)
                if last < stop:
                    decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                raise ConfigError(
                    f"{self.setting}: {file} is not UTF-8 ({error.reason}). Use data.tokens=bytes,"
                    " which reads any file, or convert it."
                ) from None

    def whole_letter(self, place: int) -> int:
        """The first place from `place` on where a character of UTF-8 begins, or the end."""
        following = b"".join(self.pieces(place, min(place + 4, self.size)))
        return place + next((i for i, b in enumerate(following) if b & 0xC0 != 0x80), 0)

    def digest(self) -> str:
        """SHA-256 of the text; every byte is read."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


@contextmanager
def _readable(file: Path, setting: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {file}: {error.strerror}.") from None


def source(path: str | None, limit: int | None, setting: str = "data.path") -> Source:
    """What `path` names: a file, a folder, a pattern, or for None the standard library.

    Raises `ConfigError` where there is nothing to read.
    """
    if path is None:
        limit = min(limit or _EMBEDDED, _EMBEDDED)
        found = Source(tuple(standard_library()), limit, setting)
        if not found.size:
            raise ConfigError("This Python's standard library has no source files. Set data.path.")
        return found
    found = Source(tuple(_files(path, setting)), limit, setting)
    if not found.size:
        raise ConfigError(f"{setting}={path} holds no text: {len(found.files)} files of 0 bytes.")
    return found


def standard_library() -> list[Path]:
    """The modules of Python's standard library that are single files, by name."""
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def _files(path: str, setting: str) -> list[Path]:
    """What `path` names, in the order of their names; hidden files are left out."""
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [f for f in place.rglob("*") if not _hidden(f.relative_to(place)) and f.is_file()]
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True)]
        found = [file for file in found if file.is_file()]
    if not found:
        raise ConfigError(_not_found(path, place, setting))
    return sorted(found)


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _not_found(path: str, place: Path, setting: str) -> str:
    if place.is_dir():
        return f"{setting}={path} is a folder without files."
    siblings = [file.name for file in place.parent.iterdir()] if place.parent.is_dir() else []
    near = did_you_mean(place.name, siblings)
    null = " data.path=null is Python's standard library." if setting == "data.path" else ""
    return (
        f"No text in {setting}={path} (looked from {Path.cwd()}).{near} It takes a file, a folder"
        f" or a pattern such as 'books/*.txt'.{null}"
    )
