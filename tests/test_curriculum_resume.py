"""Law 4 for curricula: stopped at any step, also right where batch, size or cycle change."""

from __future__ import annotations

import copy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from run_kit import Spy, at_step, branch, differences, parts, resume, some, train

from progtrain import job
from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.read import latest
from progtrain.settings import Checkpoints

CNN = ("model=cnn", "model.width=4")
STOPS = (1, 3, 4, 5, 7, 8, 9, 10, 12, 13, 15, 20, 23)
PLATEAU = ("growth.trigger.patience=1", "growth.trigger.min_delta=10")
# batch at 5 and 10, image at 4 and 8, all samples at 12
EVERYTHING = (
    *CNN,
    "curriculum=combination",
    "curriculum.curricula.difficulty.score.steps=3",
    "curriculum.curricula.image_size.multiple=1",
    "curriculum.curricula.image_size.length=8steps",
    "curriculum.curricula.batch_size.every=5steps",
    "curriculum.curricula.batch_size.maximum=32",
)
HALVED = ("train.accumulate=2", "curriculum.curricula.batch_size.maximum=16")
CASES = {
    "everything": EVERYTHING,
    "growing": (*EVERYTHING, "growth=schedule", "warmup=cosine_ramp", "warmup.length=4steps"),
    "frozen": (*EVERYTHING, "growth=schedule", "warmup=frozen_host", "warmup.isolation=4steps"),
    "budget": (*EVERYTHING, "growth=budget", "growth.max_stages=1", *HALVED),
    "text": (
        *("model=gpt", "data=text", "data.length=8", "data.bytes=2000"),
        *("curriculum=sequence_length", "curriculum.multiple=2"),
    ),
    "combined": (
        *("curriculum=difficulty", "curriculum.score.steps=3", "curriculum.length=3steps"),
        *("growth=combined", *PLATEAU, "growth.consolidation=2steps"),
        "train.evaluate_every=1steps",
    ),
}


@pytest.mark.parametrize("name", some(list(CASES), 2))
def test_stopped_at_any_step_a_run_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    made = parts(*CASES[name])
    every = replace(made, checkpoint=Checkpoints("1steps", 1000))
    whole = train(every, tmp_path / "whole")
    assert len({row["view"] for row in whole.spy.rows}) > 3
    for step in STOPS:
        again = branch(whole.directory, step, tmp_path / f"{step}")
        assert not differences(whole, resume(made, again)), step


@pytest.mark.parametrize("step", [3, 4, 5, 8, 12])
def test_a_signal_at_a_change_of_size_or_batch_changes_nothing(step: int, tmp_path: Path) -> None:
    made = parts(*EVERYTHING)
    whole = train(made, tmp_path / "whole")
    stop = at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
    assert train(made, tmp_path / "run", stop).exit_code == 128 + signal.SIGTERM
    spy = Spy()
    assert not differences(whole, resume(made, tmp_path / "run", spy))
    assert [row["view"] for row in spy.rows] == [row["view"] for row in whole.spy.rows[step:]]


def test_samples_are_ranked_once(tmp_path: Path) -> None:
    made = parts(*EVERYTHING)
    stop = at_step(3, lambda: signal.raise_signal(signal.SIGTERM))
    train(made, tmp_path, stop)
    with mock.patch("progtrain.curriculum.scores.loss.Loss.scores", side_effect=AssertionError):
        assert resume(made, tmp_path).run.clock.step == 24


def test_a_curriculum_that_a_resume_switches_on_ranks_its_samples(tmp_path: Path) -> None:
    stop = at_step(3, lambda: signal.raise_signal(signal.SIGTERM))
    train(parts(), tmp_path, stop)
    on = parts("curriculum=difficulty", "curriculum/score=function", "curriculum.length=12steps")
    finished = resume(on, tmp_path)
    assert finished.run.order is not None and finished.run.clock.step == 24


def mutated(whole: Any, made: Any, directory: Path, change: Any) -> list[str]:
    """What tells that a run resumed from a changed checkpoint is another one."""

    def changed(folder: Path) -> Checkpoint:
        good = latest(folder)
        tensors, documents = copy.deepcopy(good.tensors), copy.deepcopy(good.documents)
        change(documents["state"], tensors)
        return replace(good, tensors=tensors, documents=documents)

    with mock.patch.object(job, "latest", changed):
        return differences(whole, resume(made, directory))


def test_a_resume_without_the_order_of_samples_is_noticed_in_the_weights(tmp_path: Path) -> None:
    made = parts(*EVERYTHING)
    whole = train(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / "whole")

    def reverse(state: Any, tensors: Any) -> None:
        assert set(tensors["curriculum"]) == {"order"}
        tensors["curriculum"]["order"] = tensors["curriculum"]["order"].flip(0)

    run = branch(whole.directory, 6, tmp_path / "run")
    told = mutated(whole, made, run, reverse)
    assert any(name.startswith("model/") for name in told)


def test_a_resume_without_when_data_were_hardest_is_noticed_in_the_weights(tmp_path: Path) -> None:
    made = parts(*CASES["combined"])
    whole = train(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / "whole")
    assert whole.run.events[0].moment.step == 5

    def forget(state: Any, tensors: Any) -> None:
        del state["memory"]["combined/hardest"]

    run = branch(whole.directory, 4, tmp_path / "run")
    told = mutated(whole, made, run, forget)
    assert any(name.startswith("model/") for name in told)
