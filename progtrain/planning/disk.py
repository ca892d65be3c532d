"""How large a checkpoint is, and how long it takes to write one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from progtrain.checkpoint.document import encode_document
from progtrain.checkpoint.write import write
from progtrain.errors import EnvironmentProblem
from progtrain.hardware.engine import Engine
from progtrain.run import Run
from progtrain.state import pack

_DATA = "0" * 64  # in place of a fingerprint


def checkpoint_bytes(run: Run, engine: Engine) -> int:
    """Bytes of a checkpoint of `run` as it is now."""
    tensors, state = pack(run, engine, {}, _DATA)
    held = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    return held + len(encode_document(state))


def check_disk(directory: Path, checkpoint: int, keep: int) -> tuple[int, int]:
    """Bytes that the checkpoints of a run need, and those that are free; `EnvironmentProblem`
    where that is too little. While the newest is written, all that stay are there as well."""
    need, free = (keep + 1) * checkpoint, shutil.disk_usage(directory).free
    if need > free:
        raise EnvironmentProblem(
            f"Checkpoints need {mebibytes(need)} ({keep} that stay and one being written, each up"
            f" to {mebibytes(checkpoint)}); {directory} has {mebibytes(free)} free. Free some, set"
            " another hydra.run.dir, or grow less."
        )
    return need, free


def writing_seconds(run: Run, engine: Engine, directory: Path, config: Mapping[str, Any]) -> float:
    """Seconds to store `run`, by doing it in `directory`; nothing of it stays."""
    place = Path(tempfile.mkdtemp(prefix=".plan-", dir=directory))
    begun = time.perf_counter()
    try:
        tensors, state = pack(run, engine, {}, _DATA)
        write(place, run.clock.step, tensors, {"state": state, "config": dict(config)}, keep=2)
        return time.perf_counter() - begun
    finally:
        shutil.rmtree(place, ignore_errors=True)


def mebibytes(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
