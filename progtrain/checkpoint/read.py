"""Finds the checkpoint to go on from, and says why where there is none."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from progtrain.checkpoint.format import MANIFEST, REPLACED, STEP, Checkpoint
from progtrain.checkpoint.verify import DamagedError, load
from progtrain.errors import CheckpointError, EnvironmentProblem, did_you_mean

PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


def read(path: Path) -> Checkpoint:
    """Read a step directory, or the newest good checkpoint of a run or `checkpoints` directory.

    Raises `CheckpointError` where there is none to trust.
    """
    with _readable(path):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            _not_found(path)
        if not stat.S_ISDIR(mode):
            _refuse_file(path, stat.S_ISREG(mode))
        if STEP.fullmatch(path.absolute().name) or (path / MANIFEST).is_file():
            try:
                return load(path)
            except DamagedError as error:
                hint = "Give the run directory to use the newest good one."
                raise CheckpointError(f"{error}. {hint}") from error
        inside = path / "checkpoints"
        return latest(inside if inside.is_dir() else path)


def latest(folder: Path) -> Checkpoint:
    """The newest checkpoint in `<run>/checkpoints` that verifies; damaged ones end in `skipped`.

    Raises `CheckpointError` if none does, or if the newest is of a newer format: to pass over that
    one would silently lose work.
    """
    run = folder.parent if folder.name == "checkpoints" else folder
    with _readable(folder):
        if not run.is_dir():
            _not_found(run)
        skipped: list[str] = []
        for path in candidates(folder):
            try:
                return replace(load(path), skipped=tuple(skipped))
            except DamagedError as error:
                skipped.append(str(error))
        _refuse_foreign(folder)
    if skipped:
        raise CheckpointError(
            f"No usable checkpoint in {run}: {'; '.join(skipped)}. Start without resume."
        )
    raise CheckpointError(f"No checkpoint in {run}. Start without resume.")


def candidates(folder: Path) -> list[Path]:
    """Step directories in `folder` by name, newest first; nothing is verified.

    A crash inside a replacement leaves the replaced one under its other name: it counts, after the
    proper one of that step.
    """
    if not folder.is_dir():
        return []
    found: list[tuple[int, bool, Path]] = []
    for name in os.listdir(folder):
        match = STEP.fullmatch(name) or REPLACED.fullmatch(name)
        if match is not None:
            found.append((int(match[1]), match.re is STEP, folder / name))
    return [path for *_, path in sorted(found, reverse=True)]


@contextmanager
def _readable(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"Cannot read {path}: {error.strerror}.") from error


def _not_found(path: Path) -> NoReturn:
    folder = path.absolute().parent
    siblings = os.listdir(folder) if folder.is_dir() else []
    raise CheckpointError(f"Checkpoint not found: {path}.{did_you_mean(path.name, siblings)}")


def _refuse_file(path: Path, regular: bool) -> NoReturn:
    head = b""
    if regular:
        with path.open("rb") as file:
            head = file.read(4)
    if path.suffix in PICKLES or head == b"PK\3\4" or head[:1] == b"\x80":
        _refuse_pickle(path)
    raise CheckpointError(
        f"{path} is a file, not a checkpoint. Give the run directory or one of its step_*."
    )


def _refuse_foreign(folder: Path) -> None:
    """Tell the owner of a torch directory that it was understood, and refused."""
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if Path(name).suffix in PICKLES or name == ".metadata":
            _refuse_pickle(folder / name)


def _refuse_pickle(path: Path) -> NoReturn:
    raise CheckpointError(
        "This is a PyTorch pickle, not a progtrain checkpoint; refusing to load it"
        f" (it could run code). The file is {path}."
    )
