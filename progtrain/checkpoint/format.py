"""What a checkpoint looks like on disk, as pure functions between values and bytes.

    checkpoints/
        step_00001200/          complete: its manifest names every file, with size and sha256
            MANIFEST.json       {"manifest": {format, step, files}, "sha256": of the former}
            model.safetensors   tensors, flat name -> tensor
            state.json          everything else
        .tmp-00001400-<uuid>/   being written, or left by a crash
        .old-00001200-<uuid>/   being replaced by another checkpoint of the same step

Nothing here is a pickle: reading a checkpoint runs no code from it. A hash tells damage, not who
wrote the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from progtrain.checkpoint.document import parse, shown
from progtrain.errors import CheckpointError
from progtrain.run import Json

FORMAT = 1  # raise it when an older progtrain would misread the files
MANIFEST = "MANIFEST.json"
TENSORS, DOCUMENT = ".safetensors", ".json"
MAX_MANIFEST_BYTES, MAX_MANIFEST_DEPTH = 1 << 20, 4
MAX_BYTES = {TENSORS: 1 << 40, DOCUMENT: 1 << 28}  # of one file

FILE = re.compile(r"[a-z][a-z0-9_]{0,63}\.(safetensors|json)")
STEP = re.compile(r"step_([0-9]{8,18})")
TEMPORARY = re.compile(r"\.tmp-([0-9]{8,18})-[0-9a-f]{32}")
REPLACED = re.compile(r"\.old-([0-9]{8,18})-[0-9a-f]{32}")


@dataclass(frozen=True)
class Checkpoint:
    """What `read` and `latest` hand out: verified, on the CPU, owned by the caller."""

    path: Path  # the step directory
    step: int
    tensors: dict[str, dict[str, Tensor]]  # file stem -> flat name -> tensor, names sorted
    documents: dict[str, Json]  # file stem -> JSON data
    skipped: tuple[str, ...] = ()  # one sentence for each newer checkpoint that is damaged


@dataclass(frozen=True)
class Entry:
    """One file of a checkpoint, as its manifest knows it."""

    size: int  # bytes
    sha256: str  # 64 hexadecimal digits


@dataclass(frozen=True)
class Manifest:
    """All files of a checkpoint but the manifest itself."""

    step: int
    files: dict[str, Entry]  # by file name


def step_name(step: int) -> str:
    return f"step_{step:08d}"


def describe(step: int, blobs: Mapping[str, bytes]) -> Manifest:
    """The manifest of files `{name: content}`."""
    files = {n: Entry(len(b), hashlib.sha256(b).hexdigest()) for n, b in sorted(blobs.items())}
    return Manifest(step, files)


def encode_manifest(manifest: Manifest) -> bytes:
    files: Json = {n: {"size": e.size, "sha256": e.sha256} for n, e in manifest.files.items()}
    return _seal({"format": FORMAT, "step": manifest.step, "files": files})


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest; `ValueError` says what is wrong, `CheckpointError` that it is too new."""
    match parse(data, MAX_MANIFEST_DEPTH):
        case {"manifest": dict(content), "sha256": str()} if _seal(content) == data:
            version = content.get("format")
        case _:
            raise ValueError("its own sha256 differs")
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(
            f"Checkpoint format {version}; this progtrain reads up to {FORMAT}. Upgrade progtrain."
        )
    match content:
        case {"format": 1, "step": int(step), "files": dict(files)} if len(content) == 3:
            return Manifest(step, {name: _entry(name, entry) for name, entry in files.items()})
        case _:
            raise ValueError("not a manifest of format 1")


def _entry(name: str, entry: Json) -> Entry:
    match entry:
        case {"size": int(size), "sha256": str(digest)} if FILE.fullmatch(name):
            return Entry(size, digest)
        case _:
            raise ValueError(f"entry {shown(name)} is not allowed")


def _seal(content: Json) -> bytes:
    """Canonical bytes that carry their own hash, so that no bit of them can change unseen."""
    digest = hashlib.sha256(_dump(content)).hexdigest()
    return _dump({"manifest": content, "sha256": digest})


def _dump(value: Json) -> bytes:
    return json.dumps(value, allow_nan=False, indent=1, sort_keys=True).encode() + b"\n"


def encode_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Safetensors bytes; views, shared memory and other devices are copied out first."""
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return safetensors.torch.save(copies)


def decode_tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors, sorted by name; `ValueError` if `data` is not in the safetensors format."""
    try:
        return dict(sorted(safetensors.torch.load(data).items()))
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"not safetensors: {shown(str(error))}") from None
