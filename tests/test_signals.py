"""Signals at every moment of a run: what is stored, what is said, and the exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from run_kit import at_step, differences, parts, resume, train

from progtrain import cli, job
from progtrain.command_line import interrupted
from progtrain.command_line.argv import read
from progtrain.command_line.resume import changes
from progtrain.data.sets import Sets
from progtrain.hardware.group import Group
from progtrain.signals import WANTED, Ended, Signals, asked, ending, handled

GROWING = ("growth=schedule", "warmup=none", "checkpoint.every=25%")
TINY = [
    "data=synthetic", "data.samples=65", "data.shape=[1,4,4]", "model=mlp", "model.width=8",
    "train.batch_size=8", "hardware=cpu", "hardware.threads=1", "growth=schedule",
]  # fmt: skip


def rise(number: int = signal.SIGTERM) -> None:
    signal.raise_signal(signal.Signals(number))


@dataclass(frozen=True)
class Interrupting:
    """Data during whose reading a signal comes."""

    data: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    def load(self) -> Sets:
        rise()
        raise AssertionError("the run went on")


# Before the first step: nothing to store, so nothing is waited for.


def test_while_data_are_read_a_run_ends_at_once(tmp_path: Path) -> None:
    made = parts(*GROWING)
    with pytest.raises(Ended) as ended:
        train(replace(made, data=Interrupting(made.data)), tmp_path)
    assert ended.value.number == signal.SIGTERM
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("during", ["plan", "begin_curriculum"])
def test_while_stages_are_rehearsed_or_samples_ranked_a_run_ends_at_once(
    during: str, tmp_path: Path
) -> None:
    with mock.patch.object(job, during, lambda *_, **__: rise()), pytest.raises(Ended):
        train(parts(*GROWING), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


# From then on the first signal stores the run, whatever it does.


@contextmanager
def within(owner: Any, name: str, calls: int):
    """A signal comes in the middle of the `calls`-th call."""
    real, seen = getattr(owner, name), []

    def interrupted(*args: Any, **named: Any) -> Any:
        seen.append(1)
        if len(seen) == calls:
            rise()
        return real(*args, **named)

    with mock.patch.object(owner, name, interrupted):
        yield


def moments() -> dict[str, tuple[Any, str, int]]:
    """Where a signal comes: during which call of what."""
    from progtrain import boundary
    from progtrain.optimizers.group import OptimizerSet

    return {
        "step": (OptimizerSet, "zero_grad", 9),
        "evaluation": (boundary, "evaluate", 3),
        "growth": (boundary, "transact", 2),
        "checkpoint": (job, "write", 2),
    }


@pytest.mark.parametrize("moment", ["step", "evaluation", "growth", "checkpoint"])
def test_a_signal_at_any_moment_leaves_a_run_that_ends_with_the_same_bits(
    moment: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = parts(*GROWING)
    whole = train(made, tmp_path / "whole")
    with within(*moments()[moment]):
        ended = train(made, tmp_path / "run")
    assert ended.exit_code == 143 and 0 < ended.run.clock.step < 24
    assert "Interrupted: ends with a checkpoint after this step" in capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"
    assert not differences(whole, resume(made, tmp_path / "run"))


def test_a_signal_in_a_trial_leaves_a_run_that_ends_with_the_same_bits(tmp_path: Path) -> None:
    from progtrain.growth import trial

    made = parts("growth=budget", "growth/choice=trial", "growth.choice.steps=2", "warmup=none",
                 "growth.trigger.interval=4steps")  # fmt: skip
    whole = train(made, tmp_path / "whole")
    with within(trial, "copied", 2):
        ended = train(made, tmp_path / "run")
    assert ended.exit_code == 143 and not ended.run.events
    assert not differences(whole, resume(made, tmp_path / "run"))


def test_a_signal_in_the_last_evaluation_keeps_the_whole_result(tmp_path: Path) -> None:
    """The run is over; a multirun must still hear of it."""
    made = parts(*GROWING)
    whole = train(made, tmp_path / "whole")
    spy = at_step(24, rise, "stopped")
    ended = train(made, tmp_path / "run", spy)
    assert ended.exit_code == 143
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "done"
    assert not differences(whole, ended)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_with_its_own_code(number: int) -> None:
    def work(argv: Any) -> int:
        with asked() as signals:
            signals.patient = True
            rise(number)
            rise(number)
        raise AssertionError("the run went on")

    with mock.patch.object(cli, "_run", work):
        assert cli.run([]) == 128 + number


def test_one_of_several_processes_hears_the_first_signal_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What its group was sent and what whoever started it passes on are one request."""
    monkeypatch.setenv("RANK", "0")
    try:
        with handled(signal.SIG_IGN), ending():
            with asked() as signals:
                signals.patient = True
                rise(signal.SIGTERM)
                rise(signal.SIGTERM)
            rise(signal.SIGTERM)  # when all is stored
            assert signals.number == signal.SIGTERM
            assert signal.sigpending() == {signal.SIGTERM}
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # forgets it
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WANTED)


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_promises_a_checkpoint_when_all_others_would_store(rank: int) -> None:
    signals, seen = Signals(), list[bool]()
    with mock.patch.object(Group, "barrier", lambda _: seen.append(signals.patient)):
        job._be_patient(signals, Group(rank, 2, rank))
    assert seen == [rank == 1] and signals.patient


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ending(), asked() as signals:
        assert signal.getsignal(signal.SIGTERM) == signals.ask
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(Ended):
        Signals().ask(signal.SIGINT, None)


def test_a_multirun_is_told_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a sweep"
    for name, status in (("0", "done"), ("1", "interrupted")):
        (place / name).mkdir(parents=True)
        (place / name / "result.json").write_text(json.dumps({"status": status}))
    command = read(["-m", "seed=0,1,2", "data=text", f"hydra.sweep.dir={place}", "resume=false"])
    interrupted.tell(command, place)
    done, again = capsys.readouterr().err.splitlines()
    assert done == "Done: job 0. Begun: 1 (interrupted)."
    said = read(shlex.split(again.partition("progtrain ")[2]))
    assert said.mode is command.mode
    assert said.overrides == (
        "seed=0,1,2", "data=text", "resume=auto", f"hydra.sweep.dir='{place}'"
    )  # fmt: skip


def test_what_follows_from_other_settings_makes_no_other_job(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {mode: max, metric: val/accuracy}")
    assert not changes(tmp_path, {"train": {"mode": None, "metric": "val/accuracy"}})
    assert changes(tmp_path, {"train": {"mode": "min", "metric": "val/accuracy"}}) == [
        "train.mode: 'max' -> 'min'"
    ]


# The real command


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "progtrain", *TINY, *arguments]
    return subprocess.Popen(
        command, cwd=directory, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def when(process: subprocess.Popen[str], says: str, do: Callable[[], None]) -> tuple[str, str]:
    """Wait for a line, act; what it says from then on, and to stderr."""
    assert process.stdout is not None
    for line in process.stdout:
        if says in line:
            do()
            return process.communicate(timeout=120)
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_says_how_it_goes_on_and_does(number: int, tmp_path: Path) -> None:
    one = start(tmp_path, "train.duration=4000steps", "hydra.run.dir=a run")
    out, err = when(one, "val/accuracy", lambda: one.send_signal(number))
    assert one.returncode == 128 + number
    assert "Interrupted: ends with a checkpoint" in err
    (command,) = re.findall(r"Continue with: progtrain (.*)", err)
    assert f"resume: progtrain {command}" in out
    again = [sys.executable, "-m", "progtrain", *shlex.split(command), "train.duration=1epoch"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a run" / "result.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_multirun_says_what_is_done_and_goes_on(tmp_path: Path) -> None:
    stages = "growth.stages.wider=null"
    many = start(
        tmp_path, "-m", "train.duration=4steps,1000steps,5steps", "train.evaluate_every=20%", stages
    )
    _, err = when(many, "10% stage 1", lambda: many.send_signal(signal.SIGTERM))
    assert many.returncode == 143, err
    assert "Done: job 0. Begun: 1 (interrupted)." in err
    (command,) = re.findall(r"Continue the multirun with: progtrain (.*)", err)
    done = subprocess.run(
        [sys.executable, "-m", "progtrain", *shlex.split(command)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "job 0 is done already" in done.stdout
    assert "Resumed at step" in done.stdout
    (place,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    results = [json.loads(each.read_text()) for each in sorted(place.glob("*/result.json"))]
    assert [each["steps"] for each in results] == [4, 1000, 5]
