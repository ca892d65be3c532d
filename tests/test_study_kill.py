"""A study that is killed three times goes on from its checkpoints; no job runs at two places.

Every process writes down the steps that it trains, so what was trained twice is known exactly.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch._dynamo  # noqa: F401  each child would import it anew
from hydra.core.hydra_config import HydraConfig
from run_kit import read_rows
from test_study import folder as folder
from test_study import words

from progtrain import cli
from progtrain.command_line import study
from progtrain.command_line.argv import read
from progtrain.errors import ConfigError
from progtrain.page import comparison as page
from progtrain.stepper import Stepper

# Python warns of forks beside threads; a child of ours computes with one thread
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LONGEST = 60  # seconds that a process may take, or wait for another one
LENGTHS = {"grown": 60, "scratch_0.5": 30}  # steps; between checkpoints lies a tenth of them
JOBS = [f"{arm}/seed_{seed}" for seed in (0, 1) for arm in LENGTHS]
WHOLE = Counter({f"{job} {n + 1}": 1 for job in JOBS for n in range(LENGTHS[job.split("/")[0]])})
Fork = multiprocessing.get_context("fork")  # torch is imported once


@dataclass
class Life:
    """A process that runs the command, and what it does in its own steps, whatever their jobs."""

    dies: int = 0  # it is killed after so many; 0: never
    awaits: Event | None = None  # after the first one
    begun: Event = field(default_factory=Fork.Event)
    gone: Event = field(default_factory=Fork.Event)
    steps: int = 0

    def stepped(self) -> None:
        self.steps += 1
        if self.steps == 1:
            self.begun.set()
            if self.awaits is not None:
                self.awaits.wait(LONGEST)
        if self.steps == self.dies:
            self.gone.set()
            os.kill(os.getpid(), signal.SIGKILL)


def lived(life: Life, argv: list[str], told: Path, trained: Path) -> None:
    """In a process of its own: the command. Each of its steps is a line of `trained`."""
    signal.alarm(LONGEST)
    step = Stepper.step

    def counted(stepper: Stepper) -> None:
        step(stepper)
        place = Path(HydraConfig.get().runtime.output_dir)
        with trained.open("a") as file:
            file.write(f"{place.parent.name}/{place.name} {stepper.run.clock.step}\n")
        life.stepped()

    Stepper.step = counted
    page.write_plots = lambda *_: None  # they have tests of their own
    with told.open("a") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        print(f"exit code {cli.run(argv)}", flush=True)


def started(folder: Path, place: str, told: str, life: Life) -> BaseProcess:
    given = (life, words(folder, place=place), folder / told, folder / f"{place}.steps")
    process = Fork.Process(target=lived, args=given)
    process.start()
    return process


def ended(folder: Path, process: BaseProcess, told: str) -> tuple[int | None, str]:
    """How it ended, and what it has told."""
    process.join()
    return process.exitcode, (folder / told).read_text()


def trained(folder: Path, place: str) -> Counter[str]:
    """How often each step of each job was trained."""
    return Counter((folder / f"{place}.steps").read_text().splitlines())


def numbers(folder: Path) -> dict[str, Any]:
    """What every job has come to, without its seconds."""
    found: dict[str, Any] = {}
    for name in JOBS:
        result = json.loads((folder / name / "result.json").read_text())
        kept = ("status", "metric", "best_metric", "metrics", "params", "flops", "steps", "seed")
        rows = read_rows(folder / name / "metrics.jsonl")
        found[name] = [{key: result[key] for key in kept}, rows]
    return found


@pytest.mark.slow
def test_a_killed_study_goes_on_from_its_checkpoints(folder: Path) -> None:
    """One undisturbed study, made at the same time, serves all; see the names of the checks."""
    whole = started(folder, "whole", "told", Life())
    _killed_alone_and_beside_another_it_repeats_only_what_was_not_stored(folder)
    _, told = ended(folder, whole, "told")
    assert "0 of 4 jobs were done" in told and told.endswith("exit code 0\n"), told
    assert trained(folder, "whole") == WHOLE
    assert numbers(folder / "out") == numbers(folder / "whole")
    _changed_settings_are_refused(folder)


def _changed_settings_are_refused(folder: Path) -> None:
    changed = read(words(folder, "optimizer.lr=0.1", place="whole"))
    with pytest.raises(ConfigError, match="holds a study that was declared otherwise") as refused:
        study._prepared(changed)
    told = str(refused.value)
    assert "optimizer.lr: 0.003 -> 0.1" in told and "seed: " not in told


def _killed_alone_and_beside_another_it_repeats_only_what_was_not_stored(folder: Path) -> None:
    """Of the first job 6 steps are stored when it dies after 8, and 18 when it dies after 23;
    of the last one 9 when it dies after 11.

    The third life goes on with the first job, comes to the second one while the last life holds it,
    does the third one, and dies in the fourth one, which the last life then finds.
    """
    for told_in in ("first", "again"):
        dies = 8 if told_in == "first" else 17
        code, told = ended(folder, started(folder, "out", told_in, Life(dies=dies)), told_in)
        assert code == -signal.SIGKILL, told
    assert "Resumed at step 6." in told
    third = Life()
    second = Life(dies=(60 - 18) + 60 + 11, awaits=third.begun)
    third.awaits = second.gone
    one = started(folder, "out", "second", second)
    while one.is_alive() and not second.begun.wait(0.05):
        pass
    other = started(folder, "out", "third", third)
    code, told = ended(folder, one, "second")
    assert code == -signal.SIGKILL, told
    assert "Resumed at step 18." in told and "job scratch_0.5/seed_0 is passed over" in told
    code, told = ended(folder, other, "third")
    assert told.endswith("exit code 0\n") and "Resumed at step 9." in told, told
    assert "job grown/seed_1 is done already" in told
    again = {JOBS[0]: (7, 8, *range(19, 24)), JOBS[3]: (10, 11)}
    twice = Counter(f"{job} {step}" for job, steps in again.items() for step in steps)
    assert trained(folder, "out") - WHOLE == twice
