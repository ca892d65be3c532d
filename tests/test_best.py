"""The best checkpoints stay beside the newest, under readable names; early stopping."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from run_kit import Finished, at_step, branch, differences, parts, resume, train

from progtrain import boundary
from progtrain.best import name_of, ranked
from progtrain.checkpoint import write as writing
from progtrain.checkpoint.best import NAME, write_best
from progtrain.checkpoint.read import read
from progtrain.checkpoint.verify import verify
from progtrain.errors import EnvironmentProblem, SettingError
from progtrain.report import words
from progtrain.run import Run, StopReason
from progtrain.settings import Checkpoints, Stopping

EVERY = ("growth=none", "train.evaluate_every=1steps", "train.duration=8steps")
EIGHT = (0.5, 0.3, 0.7, 0.7, 0.1, 0.9, 0.2, 0.6)


@contextmanager
def measured(values: Sequence[float]) -> Generator[None]:
    """Evaluations after steps 1, 2, … find these accuracies."""
    usual = boundary.evaluate

    def evaluate(run: Run, *rest: Any) -> dict[str, float]:
        found = usual(run, *rest)
        value = values[min(run.clock.step, len(values)) - 1]
        return found | {"val/accuracy": value, "val/loss": 1 - value}

    with mock.patch.object(boundary, "evaluate", evaluate):
        yield


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints" / "best").iterdir())


def test_the_best_of_all_evaluations_stay_by_rank(tmp_path: Path) -> None:
    made = parts(*EVERY, "checkpoint.best=3")
    with measured(EIGHT):
        finished = train(made, tmp_path)
    run = finished.run
    assert [step for _, step, _ in ranked(run)] == [6, 3, 4]  # equal ones: the older first
    assert names(tmp_path) == sorted(name for name, *_ in ranked(run))
    assert all(NAME.fullmatch(name) for name in names(tmp_path))
    assert {"epoch=0.9796-val_accuracy=0.9", "epoch=0.4898-val_accuracy=0.7"} <= set(
        names(tmp_path)
    )
    for name, step, _ in ranked(run):
        path = tmp_path / "checkpoints" / "best" / name
        assert verify(path).step == step and read(path).step == step
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["best_checkpoints"][0] == "checkpoints/best/epoch=0.9796-val_accuracy=0.9"
    assert dict(words.summary(run))["best"].startswith("checkpoints/best: epoch=0.9796")


def test_a_loss_is_best_where_it_is_smallest(tmp_path: Path) -> None:
    made = parts(*EVERY, "checkpoint.best=1", "train.metric=val/loss", "train.mode=min")
    with measured(EIGHT):
        train(made, tmp_path)
    assert names(tmp_path) == ["epoch=0.9796-val_loss=0.1"]


def test_none_are_kept_by_default(tmp_path: Path) -> None:
    with measured(EIGHT):
        finished = train(parts(*EVERY), tmp_path)
    assert not (tmp_path / "checkpoints" / "best").exists()
    assert "best" not in dict(words.summary(finished.run))


def test_a_best_checkpoint_holds_the_weights_that_were_measured(tmp_path: Path) -> None:
    made = parts(*EVERY, "checkpoint.best=1")
    with measured(EIGHT):
        train(made, tmp_path)
        early = train(parts(*EVERY[:2], "train.duration=6steps"), tmp_path / "six").run
    (name,) = names(tmp_path)
    stored = read(tmp_path / "checkpoints" / "best" / name).tensors["model"]
    # the learning rate follows the length of the run, so the weights are compared by the file
    whole = read(tmp_path / "checkpoints").tensors["model"]
    assert any(not torch.equal(stored[key], whole[key]) for key in stored)
    assert set(stored) == set(early.model.state_dict())


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_resumed_run_keeps_the_same_ones(step: int, tmp_path: Path) -> None:
    made = parts(*EVERY, "checkpoint.best=2")
    every = replace(made, checkpoint=Checkpoints("1steps", 1000, 2))
    with measured(EIGHT):
        whole = train(every, tmp_path / "whole")
        directory = branch(whole.directory, step, tmp_path / "again")
        # what a killed run had stored beyond the checkpoint that it goes on from
        shutil.copytree(
            whole.directory / "checkpoints" / "best", directory / "checkpoints" / "best"
        )
        stale = directory / "checkpoints" / "best" / "epoch=99-val_accuracy=1"
        shutil.copytree(next((directory / "checkpoints" / "best").iterdir()), stale)
        again = resume(every, directory)
    assert not differences(whole, again)
    assert names(again.directory) == names(whole.directory)
    for name in names(again.directory):
        verify(again.directory / "checkpoints" / "best" / name)


def test_names_clash_never_and_fit_into_a_path(tmp_path: Path) -> None:
    made = parts(*EVERY, "checkpoint.best=4", "train.duration=24steps")
    with (
        measured((0.70001, 0.70002, 0.70003, 0.70004)),
        mock.patch("progtrain.clock.Clock.epoch", 12.0),
    ):
        run = train(made, tmp_path).run
    names_of = [
        f"epoch=12-val_accuracy=0.7{more}" for more in ("-step=4", "-step=5", "", "-step=7")
    ]
    assert [name for name, *_ in ranked(run)] == names_of and names(tmp_path) == sorted(names_of)
    run.metric = "val/../é head/accuracy"
    assert NAME.fullmatch(name_of(run, 1e-7, set()))
    assert "/" not in name_of(run, 0.5, set())


def test_a_full_disk_leaves_what_had_been_saved(tmp_path: Path) -> None:
    made = parts(*EVERY, "checkpoint.best=2")
    with measured(EIGHT):
        train(made, tmp_path)
    before = names(tmp_path)
    with (
        mock.patch.object(writing, "_write_file", mock.Mock(side_effect=OSError(28, "no space"))),
        pytest.raises(EnvironmentProblem),
    ):
        write_best(tmp_path / "checkpoints", "epoch=1-val_loss=1", 9, {}, {"state": {}}, ())
    assert names(tmp_path) == before
    for name in before:
        verify(tmp_path / "checkpoints" / "best" / name)


# Early stopping: evaluations after every step.


def stopped(directory: Path, values: Sequence[float], *overrides: str) -> Finished:
    with measured(values):
        return train(parts(*EVERY[:2], *overrides), directory, store=False)


RISES = (0.1, 0.2, 0.3, 0.3, 0.29, 0.3, 0.305, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3)


def test_early_stopping_ends_a_run_without_a_new_best(tmp_path: Path) -> None:
    run = stopped(tmp_path, RISES, "stop.early_stopping=4steps").run
    assert run.stopped is StopReason.EARLY_STOPPING and run.clock.step == 11  # 0.305 after step 7
    run = stopped(tmp_path / "d", RISES, "stop.early_stopping=4steps", "stop.min_delta=0.01").run
    assert run.clock.step == 7
    run = stopped(tmp_path / "n", RISES).run
    assert run.stopped is StopReason.DURATION and run.clock.step == 24
    down = [1 - value for value in RISES]
    loss = ("train.metric=val/accuracy", "train.mode=min", "stop.early_stopping=4steps")
    assert stopped(tmp_path / "m", down, *loss).run.clock.step == 11


GROWS = (
    "growth=schedule",
    "growth.stages.deeper.at=4steps",
    "growth.stages.wider=null",
    "warmup=cosine_ramp",
    "warmup.length=5steps",
    "train.evaluate_every=1steps",
)


def test_its_window_starts_again_with_a_growth_and_waits_while_one_is_alive(
    tmp_path: Path,
) -> None:
    with measured([0.5] * 24):
        run = train(parts(*GROWS, "stop.early_stopping=5steps"), tmp_path, store=False).run
    integrated = run.events[0].since.step
    assert integrated == 9 and run.events[0].moment.step == 4
    assert run.stopped is StopReason.EARLY_STOPPING and run.clock.step == integrated + 5


@pytest.mark.parametrize("step", [5, 9])
def test_the_best_so_far_survives_a_resume(step: int, tmp_path: Path) -> None:
    made = parts(*EVERY[:2], "stop.early_stopping=4steps")
    with measured(RISES):
        stop = at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        train(made, tmp_path, stop)
        run = resume(made, tmp_path).run
    assert run.clock.step == 11 and run.stopped is StopReason.EARLY_STOPPING


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (Stopping, "early_stopping", "0steps"),
        (Stopping, "early_stopping", "often"),
        (Stopping, "min_delta", -1.0),
        (Checkpoints, "best", -1),
        (Checkpoints, "best", 1.5),
    ],
)
def test_settings_say_what_they_take(kind: Any, setting: str, value: Any) -> None:
    with pytest.raises(SettingError, match=setting):
        kind(**{setting: value})
