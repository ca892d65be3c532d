"""Removes checkpoints that are not needed any more, and nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from progtrain.checkpoint.format import FILE, MANIFEST, REPLACED, STEP, TEMPORARY, step_name
from progtrain.checkpoint.read import candidates
from progtrain.checkpoint.verify import verify
from progtrain.errors import CheckpointError, EnvironmentProblem


def sweep(folder: Path) -> None:
    """Remove what a crash left in `folder`; only under the run's lock."""
    with writable(f"Cannot clean {folder}"):
        _sweep(folder)


def _sweep(folder: Path) -> None:
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        replaced = REPLACED.fullmatch(name)
        if TEMPORARY.fullmatch(name):
            remove(folder / name)
        elif replaced is not None:
            _settle(folder / name, folder / step_name(int(replaced[1])))


def prune(folder: Path, written: Path, keep: int) -> None:
    """Remove leftovers, and what is older than the `keep` newest that verify, but not `written`."""
    _sweep(folder)
    paths = [path for path in candidates(folder) if STEP.fullmatch(path.name)]
    if len(paths) <= keep:
        return
    good = 0
    for path in paths:
        if good < keep:
            good += _is_good(path)
        elif path != written:  # a run taken up again in its middle writes older steps
            remove(path)


def _is_good(path: Path) -> bool:
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def _settle(replaced: Path, final: Path) -> None:
    """End a replacement: `replaced` goes once `final` is good, and comes back if there is none."""
    if not exists(final):
        os.rename(replaced, final)
    elif _is_good(final):
        remove(replaced)


def exists(path: Path) -> bool:
    """Also for a broken link; unlike `os.path.lexists`, an I/O error is no answer."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a directory of ours; files that we never write stay, and it with them."""
    if not exists(path):
        return
    if not stat.S_ISDIR(path.lstat().st_mode):
        os.unlink(path)  # a link or a file under our name: the link goes, not its target
        return
    ours = [name for name in os.listdir(path) if name == MANIFEST or FILE.fullmatch(name)]
    for name in sorted(ours, key=lambda name: name != MANIFEST):  # the manifest first
        if not stat.S_ISDIR((path / name).lstat().st_mode):
            os.unlink(path / name)
    if not os.listdir(path):
        os.rmdir(path)


@contextmanager
def writable(failure: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"{failure}: {error.strerror or error}.") from error
