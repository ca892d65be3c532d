"""Finds the directory of a run: a fresh one of its own, or the one that the user names."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

from progtrain.errors import BusyError, EnvironmentProblem

_TRACES = ("config.yaml", "checkpoints", "multirun.yaml")


def claim(path: Path) -> Path:
    """Create `path`, or `path-2`, `path-3`, …: two runs never share one, even in one second."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            place = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                place.mkdir()
                return place
            except FileExistsError:
                continue
    except OSError as error:
        raise _unwritable(path, error) from error
    raise AssertionError("count() has no end")


def take(path: Path, shared: bool = False) -> Path:
    """Use the directory that the user names; one with a run in it only if `shared`."""
    if not shared and holds_run(path):
        raise BusyError(
            f"{path} already holds a run. Continue it with resume={path}, or name another"
            " directory."
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def holds_run(path: Path) -> bool:
    """Whether a run or a multirun has written here."""
    return any((path / trace).exists() for trace in _TRACES)


def holds_checkpoint(path: Path) -> bool:
    """Whether there is anything to continue from; whether it is good, the reader says."""
    inside = path / "checkpoints"
    return inside.is_dir() and any(not p.name.startswith(".") for p in inside.iterdir())


def _unwritable(path: Path, error: OSError) -> EnvironmentProblem:
    reason = (error.strerror or str(error)).lower()
    return EnvironmentProblem(
        f"Cannot write to output directory {path}: {reason}. Try hydra.run.dir=<directory>."
    )
