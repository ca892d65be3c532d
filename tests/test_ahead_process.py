"""The process of hardware.compile_ahead: it ends with the run, which finds what it has left."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_kit import Spy, parts, train
from test_ahead import GPT, WIDER
from torch._dynamo.utils import counters
from torch._inductor.utils import clear_caches

from progtrain.ahead import reporter
from progtrain.ahead.background import Background, Result
from progtrain.run import Run
from progtrain.setup import Setup

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # inductor's own


class Sleeps:
    """An order that takes a minute to read, in a process of the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("sleep 60",)


def packed(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def members(group: int) -> int:
    """How many processes of a group live."""
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        found += int(of) == group and state not in "ZX"
    return found


def until(ok: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not ok() and time.monotonic() < end:
        time.sleep(0.05)
    return ok()


def test_neither_the_process_nor_what_it_calls_outlives_the_run() -> None:
    process = Background(packed(Sleeps()))
    group = process._process.pid
    assert until(lambda: members(group) == 3)  # python, sh, sleep
    assert os.getpriority(os.PRIO_PROCESS, group) == 19
    os.kill(group, signal.SIGINT)
    os.kill(group, signal.SIGTERM)
    time.sleep(0.2)
    assert members(group) == 3
    process.end()
    assert until(lambda: members(group) == 0, 5)


ORPHAN = """
import sys, time
sys.path[:0] = {path}
from test_ahead_process import Background, Sleeps, packed
process = Background(packed(Sleeps()))
print(process._process.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_when_the_run_is_killed() -> None:
    code = ORPHAN.format(path=[str(Path(__file__).parent), *sys.path])
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    group = int(run.stdout.readline())
    try:
        assert until(lambda: members(group) == 3)
        run.kill()
        assert until(lambda: members(group) == 0, 5)
    finally:
        run.kill()
        run.communicate()
        if members(group):
            os.killpg(group, signal.SIGKILL)


def test_a_process_that_fails_tells_why_in_one_line() -> None:
    found = come_of(Background(b"no order"))
    assert found.failed and "\n" not in found.ended
    assert "Error: " in found.ended and "what is missing compiles at the growth" in found.ended
    lost = Background(packed(Sleeps()))
    lost._process.kill()
    assert "ended with code -9" in come_of(lost).ended


def come_of(process: Background) -> Result:
    end = time.monotonic() + 60
    while (found := process.result()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_a_growth_finds_on_disk_what_was_compiled_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graphs of a ramp, and those after it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    clear_caches()
    followed, made = list[reporter.Ahead](), reporter.Ahead.__init__

    def noted(self: reporter.Ahead, setup: Setup) -> None:
        followed.append(self)
        made(self, setup)

    monkeypatch.setattr(reporter.Ahead, "__init__", noted)

    def act(call: str, run: Run) -> None:
        if call == "stepped" and run.clock.step == 10 and followed:
            process = followed[0]._process
            assert process is not None
            until(lambda: process._process.poll() is not None, 300)
        if call == "grew":
            counters.clear()

    def counts(*more: str) -> tuple[list[str], list[int]]:
        spy = Spy(act)
        common = (*WIDER, *GPT, "widen=random", "hardware.compile=true")
        done = train(parts(*common, *more), tmp_path / str(len(more)), spy)
        assert len(done.run.events) == 1
        names = ("fxgraph_cache_hit", "fxgraph_cache_miss")
        found = [counters["inductor"][name] for name in names]
        return spy.notes, [*found, counters["aot_autograd"]["autograd_cache_hit"]]

    notes, found = counts("warmup=cosine_ramp", "hardware.compile_ahead=true")
    assert found == [4, 0, 2]  # forward and backward, with a ramp and without
    assert any(note.startswith("compiled ahead: 2 graphs") for note in notes)
    followed.clear()
    notes, found = counts("warmup=none", "widen=random", "widen.factor=3")
    assert found == [0, 2, 0]
    assert not any("compiled ahead" in note for note in notes)
