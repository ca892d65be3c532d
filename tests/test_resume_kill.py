"""Law 4 with SIGKILL: at random times, and at every change that is made to the disk.

Each life of a run is a fork of this process, with one thread; torch is imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from run_kit import at_step, differing, otherwise, parts, train

from progtrain.build import Parts

# Python warns of forks beside threads; a child of ours computes with one thread
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

CHANGES = ("mkdir", "write", "rename", "replace", "unlink", "rmdir", "truncate", "ftruncate")
FEW_KILLS = 4


@cache
def made() -> Parts:
    """Two growths, the first of them before anything is stored; ramps over stored steps."""
    return parts(
        "growth=schedule",
        "growth.consolidation=2steps",
        "growth.stages.deeper.at=2steps",
        "growth.stages.wider.at=13steps",
        "warmup=cosine_ramp",
        "warmup.length=5steps",
        "model=cnn",
        "model.width=4",
        "model.dropout=0.3",
        "checkpoint.every=3steps",
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bits of a run that nobody stopped."""
    return train(made(), tmp_path_factory.mktemp("whole")).bits


def live(directory: Path) -> None:
    """One life: from the newest checkpoint, if there is one, to the end; as resume=auto does."""
    stored = any(directory.glob("checkpoints/step_*"))
    with otherwise():
        ended = train(replace(made(), resume=stored), directory)
    (directory / "bits.json").write_text(json.dumps(ended.bits))


def forked(directory: Path, work: Callable[[], object]) -> int:
    """The process that does `work`; it is killed after a minute."""
    process = os.fork()
    if process:
        return process
    try:
        signal.alarm(60)
        work()
        os._exit(0)
    except BaseException:
        (directory / "error.txt").write_text(traceback.format_exc())
    finally:
        os._exit(1)


def ended(process: int) -> int:
    """0, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def finish(directory: Path, whole: dict[str, str]) -> list[str]:
    """Live on to the end; what differs from the run that nobody stopped, and what is left over."""
    assert len({name[-32:] for name in leftovers(directory)}) <= 1, "of more than one checkpoint"
    code = ended(forked(directory, lambda: live(directory)))
    error = directory / "error.txt"
    assert code == 0, error.read_text() if error.exists() else code
    different = differing(whole, json.loads((directory / "bits.json").read_text()))
    return different + leftovers(directory)


def leftovers(directory: Path) -> list[str]:
    folder = directory / "checkpoints"
    return [p.name for p in folder.glob(".*")] if folder.exists() else []


def dying(at: int | None, counted: list[str], work: Callable[[], None]) -> None:
    """Do `work` and die before the change to the disk that has this number."""

    def before(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **named: Any) -> Any:
            counted.append(name)
            if len(counted) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **named)

        return counting

    with ExitStack() as patches:
        for name in CHANGES:
            changed = before(name, getattr(os, name))
            patches.enter_context(mock.patch.object(os, name, changed))
        work()


def count_changes(directory: Path) -> list[str]:
    """Every change a life makes to the disk, in order."""

    def work() -> None:
        counted: list[str] = []
        dying(None, counted, lambda: live(directory))
        (directory / "changes.json").write_text(json.dumps(counted))

    assert ended(forked(directory, work)) == 0
    return json.loads((directory / "changes.json").read_text())


def wrong_points(points: list[int], tmp_path: Path, whole: dict[str, str]) -> dict[int, list[str]]:
    """Changes to the disk at which a death leaves a trace, with what differs."""
    wrong: dict[int, list[str]] = {}
    for point in points:
        directory = tmp_path / str(point)
        directory.mkdir()
        process = forked(directory, lambda d=directory, p=point: dying(p, [], lambda: live(d)))
        assert ended(process) == -signal.SIGKILL
        different = finish(directory, whole)
        if different:
            wrong[point] = different
    return wrong


def wrong_chains(seed: int, kills: int, tmp_path: Path, whole: dict[str, str]) -> list[str]:
    """Runs killed at random times, up to five times each, until so many kills have landed."""
    draw, landed = random.Random(seed), 0
    begun = time.perf_counter()
    wrong = finish(_directory(tmp_path, "unkilled"), whole)
    lasts = time.perf_counter() - begun
    for number in count():
        if landed >= kills:
            return wrong
        directory = _directory(tmp_path, str(number))
        for _ in range(5):
            process = forked(directory, lambda d=directory: live(d))
            time.sleep(draw.uniform(0, lasts))
            os.kill(process, signal.SIGKILL)
            if ended(process) == 0:  # it was faster
                break
            landed += 1
        wrong += finish(directory, whole)
    raise AssertionError("count() has no end")


def _directory(tmp_path: Path, name: str) -> Path:
    directory = tmp_path / name
    directory.mkdir(parents=True)
    return directory


def test_a_run_killed_at_a_change_of_its_disk_ends_with_the_same_bits(
    tmp_path: Path, whole: dict[str, str]
) -> None:
    changes = count_changes(_directory(tmp_path, "count"))
    every = {name: [i for i, n in enumerate(changes, 1) if n == name] for name in changes}
    assert set(every) >= {"mkdir", "write", "rename", "replace", "unlink", "rmdir"}
    points = {points[len(points) // 2] for points in every.values()}  # one of each kind
    points |= {2, every["rename"][0], len(changes)}  # before anything is stored; at the very end
    assert not wrong_points(sorted(points), tmp_path, whole)


@pytest.mark.slow
def test_a_run_killed_at_any_change_of_its_disk_ends_with_the_same_bits(
    tmp_path: Path, whole: dict[str, str]
) -> None:
    changes = count_changes(_directory(tmp_path, "count"))
    assert set(changes) >= {"mkdir", "write", "rename", "replace", "unlink", "rmdir"}
    assert not wrong_points(list(range(1, len(changes) + 1)), tmp_path, whole)


def test_a_run_killed_at_random_times_ends_with_the_same_bits(
    tmp_path: Path, whole: dict[str, str]
) -> None:
    assert not wrong_chains(0, FEW_KILLS, tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 13))
def test_a_run_killed_many_times_ends_with_the_same_bits(
    seed: int, tmp_path: Path, whole: dict[str, str]
) -> None:
    assert not wrong_chains(seed, 12, tmp_path, whole)


def test_a_run_killed_while_a_signal_ends_it_ends_with_the_same_bits(
    tmp_path: Path, whole: dict[str, str]
) -> None:
    directory = _directory(tmp_path, "run")

    def work() -> None:
        spy = at_step(11, lambda: signal.raise_signal(signal.SIGTERM))
        spy.act, asked = _killing_at_stop(spy.act), spy
        train(made(), directory, asked)

    assert ended(forked(directory, work)) == -signal.SIGKILL
    assert not finish(directory, whole)


def _killing_at_stop(act: Callable[..., None]) -> Callable[..., None]:
    def acting(call: str, run: Any) -> None:
        act(call, run)
        if call == "stopped":
            os.kill(os.getpid(), signal.SIGKILL)

    return acting
