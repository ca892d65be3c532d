"""Writes checkpoints so that one reported as saved survives SIGKILL, a full disk and power loss.

    write .tmp-<step>-<uuid>/*     each file from memory, with fsync
    write its MANIFEST.json        with fsync; then fsync the directory
    rename it to step_<step>       then fsync the parent: now it is saved
    remove the oldest              its MANIFEST.json first, so a half-removed one never verifies

The caller holds the run's lock (`lock.py`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from torch import Tensor

from progtrain.checkpoint.document import encode_document
from progtrain.checkpoint.format import (
    DOCUMENT,
    FILE,
    MANIFEST,
    MAX_BYTES,
    STEP,
    TENSORS,
    Manifest,
    describe,
    encode_manifest,
    encode_tensors,
    step_name,
)
from progtrain.checkpoint.prune import exists, prune, remove, writable
from progtrain.checkpoint.read import candidates
from progtrain.checkpoint.verify import verify
from progtrain.errors import CheckpointError, EnvironmentProblem, require
from progtrain.run import Json


def write(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Json],
    keep: int,
) -> Path:
    """Save a checkpoint in `folder` and return its directory; it is durable then.

    `tensors` and `documents` map file stems to contents. Then prune to the `keep` newest that
    verify (and this one). Raises `EnvironmentProblem` if the disk does not allow it; what had been
    saved before stays.
    """
    require(keep >= 2, "keep", keep, "a whole number >= 2", "A single one can be lost to damage.")
    final = write_as(folder, step_name(step), step, tensors, documents)
    with writable(f"{final} is saved, but an older checkpoint could not be removed"):
        prune(folder, final, keep)
    return final


def write_as(
    folder: Path,
    name: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Json],
) -> Path:
    """Save a checkpoint as `folder`/`name`; nothing else there is touched."""
    blobs = _encode(tensors, documents)
    manifest = describe(step, blobs)
    final = folder / name
    needed = sum(len(blob) for blob in blobs.values()) * 11 // 10
    with writable(f"Cannot create {folder}"):
        os.makedirs(folder, 0o700, exist_ok=True)
        _sync_parents(folder)
        free = shutil.disk_usage(folder).free
    with writable(f"Cannot write {final}, which needs {needed:,} bytes of {free:,} free"):
        if _holds(final, manifest):
            _sync(folder)  # whoever renamed it may have died before this
        else:
            _check_space(folder, needed, free)
            _create(final, blobs, manifest)
    return final


def _encode(
    tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Json]
) -> dict[str, bytes]:
    """All files but the manifest, `{name: content}`."""
    blobs = {stem + TENSORS: encode_tensors(content) for stem, content in tensors.items()}
    blobs |= {stem + DOCUMENT: encode_document(content) for stem, content in documents.items()}
    for name, blob in blobs.items():
        if not FILE.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a file of a checkpoint")
        if len(blob) > MAX_BYTES[Path(name).suffix]:
            raise ValueError(f"{name} is too large to be read again: {len(blob):,} bytes")
    return blobs


def _create(final: Path, blobs: Mapping[str, bytes], manifest: Manifest) -> None:
    """Write all files aside, then let them appear at once under their final name."""
    temporary = final.parent / f".tmp-{manifest.step:08d}-{uuid4().hex}"
    try:
        os.mkdir(temporary, 0o700)
        for name, blob in blobs.items():
            _write_file(temporary / name, blob)
        _write_file(temporary / MANIFEST, encode_manifest(manifest))
        _sync(temporary)
        _publish(temporary, final)
    except BaseException:  # also KeyboardInterrupt: no stump stays
        with suppress(OSError):
            remove(temporary)
        raise


def _publish(temporary: Path, final: Path) -> None:
    """Give a complete directory its final name; `prune` removes one that had it before."""
    replaced = None
    if exists(final) and not STEP.fullmatch(final.name):
        remove(final)  # one of the best; a run that is taken up again makes it anew
    elif exists(final):
        replaced = final.with_name(temporary.name.replace(".tmp-", ".old-"))
        os.rename(final, replaced)
    try:
        os.rename(temporary, final)
    except BaseException:
        if replaced is not None:
            with suppress(OSError):  # the reader would find it under its other name, too
                os.rename(replaced, final)
        raise
    _sync(final.parent)


def _write_file(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            written = os.write(file, rest[: 1 << 30])  # some systems refuse 2 GiB at once
            if written == 0:
                raise OSError(errno.EIO, "no byte was written")
            rest = rest[written:]
        os.fsync(file)
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    """Make names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_parents(folder: Path) -> None:
    """Make the way to `folder` durable; whoever made the directories above it may not have."""
    _sync(folder.parent)
    if not candidates(folder):
        for distant in folder.parent.absolute().parents:
            with suppress(OSError):  # not ours to read, or a file system that has no such thing
                _sync(distant)


def _check_space(folder: Path, needed: int, free: int) -> None:
    if free < needed:
        raise EnvironmentProblem(
            f"A checkpoint needs {needed:,} bytes; {folder} has {free:,} bytes free."
            " Free some, or choose another hydra.run.dir."
        )


def _holds(path: Path, manifest: Manifest) -> bool:
    """Whether this very checkpoint is there already."""
    try:
        return verify(path) == manifest
    except CheckpointError:
        return False
