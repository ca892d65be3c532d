"""Believes a step directory only if every byte verifies; no parser sees a byte before that.

There is no laxer way in: no pickle, no partial load, no link to follow.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from progtrain.checkpoint.document import decode_document, shown
from progtrain.checkpoint.format import (
    MANIFEST,
    MAX_BYTES,
    MAX_MANIFEST_BYTES,
    STEP,
    TENSORS,
    Checkpoint,
    Manifest,
    decode_manifest,
    decode_tensors,
    describe,
    step_name,
)
from progtrain.errors import CheckpointError


class DamagedError(CheckpointError):
    """A step directory that does not verify; `str()` is a sentence without its full stop."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{shown(path.name)} is damaged ({reason})")


def verify(path: Path) -> Manifest:
    """The manifest of a step directory whose every byte is as written.

    Raises `DamagedError`, or `CheckpointError` for a newer format.
    """
    manifest = _inspect(path)
    for name in manifest.files:
        _verified(path, name, manifest)
    return manifest


def load(path: Path) -> Checkpoint:
    """The content of a step directory; raises as `verify` does."""
    manifest = _inspect(path)
    blobs = {name: _verified(path, name, manifest) for name in manifest.files}
    checkpoint = Checkpoint(path, manifest.step, {}, {})
    for name in list(blobs):
        data, stem = blobs.pop(name), Path(name).stem
        try:
            if name.endswith(TENSORS):
                checkpoint.tensors[stem] = decode_tensors(data)
            else:
                checkpoint.documents[stem] = decode_document(data)
        except ValueError as error:
            raise DamagedError(path, f"{name}: {error}") from error
    return checkpoint


def _inspect(path: Path) -> Manifest:
    """Everything that can be checked without reading the files."""
    with _damage(path, "directory"):
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise DamagedError(path, "not a directory")
        present = set(os.listdir(path))
    data = _content(path, MANIFEST, MAX_MANIFEST_BYTES)
    try:
        manifest = decode_manifest(data)
    except ValueError as error:
        raise DamagedError(path, f"{MANIFEST}: {error}") from error
    name = path.absolute().name
    if STEP.fullmatch(name) and name != step_name(manifest.step):
        raise DamagedError(path, f"{MANIFEST}: is of step {manifest.step}")
    for odd in sorted(present ^ {MANIFEST, *manifest.files}):
        reason = "not in the manifest" if odd in present else "missing"
        raise DamagedError(path, f"{shown(odd)}: {reason}")
    return manifest


def _verified(path: Path, name: str, manifest: Manifest) -> bytes:
    expected = manifest.files[name]
    data = _content(path, name, MAX_BYTES[Path(name).suffix])
    if len(data) != expected.size:
        raise DamagedError(path, f"{name}: {len(data):,} bytes, not {expected.size:,}")
    if describe(manifest.step, {name: data}).files[name] != expected:
        raise DamagedError(path, f"{name}: sha256 differs")
    return data


def _content(path: Path, name: str, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes."""
    with _damage(path, name):
        status = (path / name).lstat()
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(path, f"{name}: not a regular file")
        if status.st_size > limit:
            raise DamagedError(path, f"{name}: more than {limit:,} bytes")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path / name, flags), "rb") as file:
            return file.read(status.st_size + 1)


@contextmanager
def _damage(path: Path, name: str) -> Generator[None]:
    """Missing or unreadable media is damage; any other error says nothing about the checkpoint."""
    try:
        yield
    except FileNotFoundError:
        raise DamagedError(path, f"{name}: missing") from None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise DamagedError(path, f"{name}: {error.strerror}") from error
