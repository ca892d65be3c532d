"""The tests of law 4 can fail: without any one thing that a checkpoint holds, a resume is noticed.

Each mutant is a checkpoint from which one thing has been taken after it was read.
"""

from __future__ import annotations

import copy
import random
import signal
from collections.abc import Callable, Generator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from growth_kit import AtSteps
from run_kit import Finished, at_step, branch, differences, parts, resume, train

from progtrain import job, steps
from progtrain.build import Parts
from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.read import latest
from progtrain.errors import ProgtrainError
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.run import Event, Run, Teacher
from progtrain.settings import Checkpoints

State = dict[str, Any]
Tensors = dict[str, dict[str, torch.Tensor]]
Mutant = Callable[[State, Tensors], None]

DROPOUT = ("model=cnn", "model.width=4", "model.dropout=0.3", "at_growth=rewarm")
TWICE = (
    "growth=schedule",
    "growth.consolidation=2steps",
    "growth.stages.deeper.at=4steps",
    "growth.stages.wider.at=13steps",
)
RAMP = (*DROPOUT, *TWICE, "warmup=cosine_ramp", "warmup.length=5steps", "at_growth.length=6steps")
JOINED = (*RAMP, "growth.stages.wider.operator=${insert}")
FROZEN = (*DROPOUT, *TWICE, "warmup=frozen_host", "warmup.isolation=5steps")
HEADED = (*FROZEN, "head=second", "growth.stages.wider.operator=${head}")
TAUGHT = (*RAMP, "transfer=progressive", "transfer.length=12steps")
LATE = (  # one growth, at step 12, whose ramp goes beyond the end of the run
    *DROPOUT,
    "growth=plateau",
    "growth.trigger.patience=1",
    "growth.trigger.min_delta=10",
    "warmup=cosine_ramp",
    "warmup.length=5steps",
    "at_growth.length=6steps",
    "train.evaluate_every=6steps",
    "train.duration=16steps",
)
KEPT = (*RAMP, "growth.keep_if='gain > 2'", "growth.embargo=100%", "train.ema=0.9")
LEAPS = [f"monitor.instability.{name}=1.0001" for name in ("loss", "variance", "gradient")]
HELD = (  # the first growth, at step 4, is found unstable at step 5 and waits for 3 steps
    *RAMP,
    "monitor=instability",
    "monitor.instability.window=3",
    "monitor.instability.every=1",
    "monitor.instability.remedy=adapt",
    "monitor.instability.hold=3steps",
    "growth.stages.wider.at=20steps",
    "train.duration=40steps",
    *LEAPS,
)
# step 10 has NaN in its data, and the run goes back to the anchor of step 4
ANCHORED = (*RAMP, "nonfinite.policy=rollback", "nonfinite.back=4steps", "train.ema=0.9")
CUT = (*RAMP, "settle=until_recovered", "settle.rate=0.1", "settle.within=50%")
MID_RAMP, SETTLING, AFTER = 15, 19, 22


@pytest.fixture(autouse=True, scope="module")
def not_finite() -> Generator[None]:
    """The data of one step of runs that keep anchors; nothing else here does."""
    usual = steps.training_batch

    def batch(run: Run, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = usual(run, *rest)
        return (x * float("nan") if run.anchors and run.clock.step + 1 == 10 else x), y

    with mock.patch.object(steps, "training_batch", batch):
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Parts, Finished]]:
    """Runs with a checkpoint at every step, each trained once."""
    known: dict[tuple[str, ...], tuple[Parts, Finished]] = {}

    def of(overrides: tuple[str, ...]) -> tuple[Parts, Finished]:
        if overrides not in known:
            made = parts(*overrides)
            every = replace(made, checkpoint=Checkpoints("1steps", 1000))
            known[overrides] = made, train(every, tmp_path_factory.mktemp("stored"))
        return known[overrides]

    return of


def noticed(
    stored: Any, overrides: tuple[str, ...], step: int, mutant: Mutant, directory: Path
) -> list[str]:
    """What tells that a run resumed from a mutant is another one; an error tells, too."""
    made, whole = stored(overrides)
    return _resumed(made, whole, branch(whole.directory, step, directory / "run"), mutant)


def _resumed(made: Parts, whole: Finished, directory: Path, mutant: Mutant) -> list[str]:
    def mutated(folder: Path) -> Checkpoint:
        good = latest(folder)
        tensors, documents = copy.deepcopy(good.tensors), copy.deepcopy(good.documents)
        state: Any = documents["state"]
        mutant(state, tensors)
        return replace(good, tensors=tensors, documents=documents)

    with mock.patch.object(job, "latest", mutated):
        try:
            return differences(whole, resume(made, directory))
        except (ProgtrainError, LookupError, RuntimeError, AssertionError) as error:
            return [f"raised {type(error).__name__}"]


def setting(name: str, value: Any) -> Mutant:
    def mutant(state: State, tensors: Tensors) -> None:
        assert state[name] != value, f"{name} has nothing to lose here"
        state[name] = value

    return mutant


def without(file: str, part: str) -> Mutant:
    """Tensors of a file whose name ends so, set to zero."""

    def mutant(state: State, tensors: Tensors) -> None:
        chosen = [tensor for name, tensor in tensors[file].items() if name.endswith(part)]
        assert chosen and any(bool(tensor.any()) for tensor in chosen)
        for tensor in chosen:
            tensor.zero_()

    return mutant


def forgotten(state: State, tensors: Tensors) -> None:
    """No losses of the last steps."""
    assert bool(tensors["recent"]["values"].isfinite().any())
    tensors["recent"]["values"].fill_(-float("inf"))


def unseeded(source: str) -> Mutant:
    """A source of random numbers as it is in another process."""
    python = random.Random(999).getstate()[1]
    other = {
        "torch": torch.Generator().manual_seed(999).get_state(),
        "python": torch.tensor(python),
        "python_gauss": torch.tensor([], dtype=torch.float64),
        "numpy": torch.tensor(np.random.RandomState(999).get_state()[1].astype(np.int64)),
        "numpy_rest": torch.tensor([624.0, 0.0, 0.0], dtype=torch.float64),
    }

    def mutant(state: State, tensors: Tensors) -> None:
        assert not torch.equal(tensors["rng"][source], other[source])
        tensors["rng"][source] = other[source]

    return mutant


def aged(name: str, value: Any) -> Mutant:
    """One field of the last event."""

    def mutant(state: State, tensors: Tensors) -> None:
        assert state["events"][-1][name] != value, f"{name} has nothing to lose here"
        state["events"][-1][name] = value

    return mutant


ZERO = {"step": 0, "samples": 0, "flops": 0.0, "seconds": 0.0}
OF_STATE: dict[str, tuple[tuple[str, ...], int, Mutant]] = {
    "clock": (RAMP, MID_RAMP, setting("clock", ZERO)),
    "account": (RAMP, MID_RAMP, setting("account", {"flops": {}, "seconds": {}, "tokens": 0})),
    "events": (RAMP, MID_RAMP, setting("events", [])),
    "history": (RAMP, MID_RAMP, setting("history", [])),
    "ways_back": (KEPT, 7, setting("ways_back", {})),
    "anchors": (ANCHORED, 9, setting("anchors", [])),
    "teachers": (TAUGHT, MID_RAMP, setting("teachers", [])),
    "grown_out": (RAMP, AFTER, setting("grown_out", None)),
    "files": (RAMP, MID_RAMP, setting("files", {})),
    "data": (RAMP, MID_RAMP, setting("data", "")),
    "fingerprint": (RAMP, MID_RAMP, setting("fingerprint", {})),
}
# `memory` and each event's alpha matter where a run was stopped after its last step: see below.
# On a CPU no loss is scaled, and nobody reads why the run had stopped.
OTHERS = {"memory", "scaler", "stopped"}

OF_TENSORS: dict[str, tuple[tuple[str, ...], int, Mutant]] = {
    "weights of before": (KEPT, 7, without("before_0_model", "weight")),
    "moments of before": (KEPT, 7, without("before_0_optimizer", "/exp_avg")),
    "average of before": (KEPT, 7, without("before_0_average", "weight")),
    **{
        f"{part} of an anchor": (ANCHORED, 9, without(f"anchor_0_{file}", name))
        for part, file, name in (
            ("weights", "model", "weight"),
            ("moments", "optimizer", "/exp_avg"),
            ("average", "average", "weight"),
        )
    },
    "recent losses": (HELD, 4, forgotten),
    **{
        f"optimizer {key}": (RAMP, MID_RAMP, without("optimizer", f"/{key}"))
        for key in ("exp_avg", "exp_avg_sq", "step", "ones1", "ones2")
    },
    "momentum": ((*RAMP, "optimizer=sgd"), MID_RAMP, without("optimizer", "/momentum_buffer")),
    "weights": (RAMP, MID_RAMP, without("model", "head.weight")),
    "running mean": (RAMP, MID_RAMP, without("model", "running_mean")),
    "running variance": (RAMP, MID_RAMP, without("model", "running_var")),
    "teacher 0": (TAUGHT, MID_RAMP, without("teacher_0", "head.weight")),
    "teacher 1": (TAUGHT, MID_RAMP, without("teacher_1", "running_mean")),
    "batches tracked": (RAMP, MID_RAMP, without("model", "num_batches_tracked")),
}
SOURCES = ("torch", "python", "python_gauss", "numpy", "numpy_rest")

# What of the last event changes the network itself, not only what is told of it.
OF_WEIGHTS: dict[str, tuple[tuple[str, ...], int, Mutant]] = {
    "moment": (RAMP, MID_RAMP, aged("moment", ZERO)),
    "phase in a ramp": (RAMP, MID_RAMP, aged("phase", "INTEGRATED")),
    "since in a ramp": (RAMP, MID_RAMP, aged("since", {**ZERO, "step": 12})),
    "slabs in a ramp": (RAMP, MID_RAMP, aged("slabs", [])),
    "phase in isolation": (FROZEN, MID_RAMP, aged("phase", "CONSOLIDATE")),
    "since in isolation": (FROZEN, MID_RAMP, aged("since", {**ZERO, "step": 12})),
    "slabs in isolation": (FROZEN, MID_RAMP, aged("slabs", [])),
    "blocks in a ramp": (RAMP, 7, aged("blocks", [])),
    "blocks in isolation": (FROZEN, 7, aged("blocks", [])),
    "inserted in a ramp": (JOINED, MID_RAMP, aged("inserted", [])),
    "heads in isolation": (HEADED, MID_RAMP, aged("heads", [])),
    "edit": (RAMP, MID_RAMP, aged("edit", [])),
    "stretch in a ramp": (RAMP, MID_RAMP, aged("stretch", 3.0)),
    "ramped in a ramp": (RAMP, MID_RAMP, aged("ramped", 0.5)),
    "hold in a hold": (HELD, 6, aged("hold", "9steps")),
    "recovered in a cut of the rate": (CUT, MID_RAMP, aged("recovered", None)),
}
# what is kept of the newest teacher, and whether the weights tell
OF_TEACHERS: dict[str, tuple[Any, bool]] = {
    "growth": (0, False),
    "stage": ("", False),
    "since": (ZERO, True),
    "flops": (0.0, False),
    "device": ("", False),
    "precision": ("bf16", True),
}
TOLD = {
    "inherited": None,
    "index": 5,
    "stage": "",
    "cause": "",
    "params_before": 0,
    "params_after": 0,
    "flops_before": 0.0,
    "flops_after": 0.0,
    "promised": False,
    "preservation_error": 1.0,
    "metric_before": None,
    "metric_after": None,
    "output_change": 1.0,
    "loss_before": 9.0,
    "loss_after": 9.0,
    "cost": 1.0,
    "shares": True,
    "consolidation": "1steps",
    "rate": 0.5,
    "undone": "it was not",
    "lost": 1.0,
    "contribution": 0.5,
}


@pytest.mark.parametrize("name", OF_STATE)
def test_a_resume_without_a_part_of_the_state_is_noticed(
    name: str, stored: Any, tmp_path: Path
) -> None:
    assert noticed(stored, *OF_STATE[name], tmp_path)


@pytest.mark.parametrize("name", OF_TENSORS)
def test_a_resume_without_some_tensors_is_noticed(name: str, stored: Any, tmp_path: Path) -> None:
    assert noticed(stored, *OF_TENSORS[name], tmp_path)


@pytest.mark.parametrize("name", SOURCES)
def test_a_resume_without_a_source_of_randomness_is_noticed(name: str, tmp_path: Path) -> None:
    made = parts(*RAMP)
    every = replace(made, checkpoint=Checkpoints("5steps", 1000))

    def draw() -> None:  # the second of a pair of normal numbers waits
        random.gauss(0, 1)
        np.random.standard_normal()

    whole = train(every, tmp_path / "whole", at_step(3, draw))
    told = _resumed(made, whole, branch(whole.directory, 10, tmp_path / "run"), unseeded(name))
    assert f"rng/{name.partition('_')[0]}" in told
    assert name != "torch" or any(key.startswith("model/") for key in told)


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_a_resume_without_what_a_growth_does_to_training_is_noticed_in_the_weights(
    name: str, stored: Any, tmp_path: Path
) -> None:
    told = noticed(stored, *OF_WEIGHTS[name], tmp_path)
    assert told[0].startswith("raised") or any(key.startswith("model/") for key in told), told


@pytest.mark.parametrize("field", ["events", "moment", "params", "flops", "account"])
def test_a_resume_without_what_is_kept_of_an_anchor_is_noticed(
    field: str, stored: Any, tmp_path: Path
) -> None:
    value = {"events": [], "moment": ZERO, "account": {}}.get(field, 1)

    def mutant(state: State, tensors: Tensors) -> None:
        index, anchor = next(
            (index, each) for index, each in enumerate(state["anchors"]) if each[field] != value
        )
        anchor[field] = value
        state["anchors"] = [anchor]  # the one that it goes back to
        for name in ("model", "optimizer", "average"):
            tensors[f"anchor_0_{name}"] = tensors[f"anchor_{index}_{name}"]

    assert noticed(stored, ANCHORED, 9, mutant, tmp_path)


@pytest.mark.parametrize("name", OF_TEACHERS)
def test_a_resume_without_what_is_kept_of_a_teacher_is_noticed(
    name: str, stored: Any, tmp_path: Path
) -> None:
    value, in_weights = OF_TEACHERS[name]

    def mutant(state: State, tensors: Tensors) -> None:
        assert state["teachers"][-1][name] != value, f"{name} has nothing to lose here"
        state["teachers"][-1][name] = value

    told = noticed(stored, TAUGHT, MID_RAMP, mutant, tmp_path)
    changed = any(key.startswith(("model/", "raised")) for key in told)
    assert changed if in_weights else told, told


def test_a_resume_without_what_a_teacher_was_blending_is_noticed(tmp_path: Path) -> None:
    """A growth in the middle of another one's ramp."""
    made = parts(*TAUGHT)
    growth = AtSteps({4: DeepenRandom(), 6: WidenRandom()})
    made = replace(made, growth=growth, checkpoint=Checkpoints("1steps", 1000))
    whole = train(made, tmp_path / "whole")
    run = branch(whole.directory, 9, tmp_path / "run")
    assert not differences(whole, resume(made, branch(whole.directory, 9, tmp_path / "good")))

    def mutant(state: State, tensors: Tensors) -> None:
        assert state["teachers"][1]["events"]
        state["teachers"][1]["events"] = []

    assert any(key.startswith("model/") for key in _resumed(made, whole, run, mutant))


@pytest.mark.parametrize("name", TOLD)
def test_a_resume_without_what_is_told_of_a_growth_is_noticed(
    name: str, stored: Any, tmp_path: Path
) -> None:
    assert noticed(stored, RAMP, SETTLING, aged(name, TOLD[name]), tmp_path)


@pytest.mark.parametrize(
    ("mutant", "told"),
    [
        (aged("alpha", 1.0), "event/0/alpha"),
        (setting("memory", {}), "metrics.jsonl:2"),
    ],
    ids=["alpha", "memory"],
)
def test_a_run_stopped_after_its_last_step_needs_the_ramp_and_the_loss_of_that_step(
    mutant: Mutant, told: str, tmp_path: Path
) -> None:
    made = parts(*LATE)
    whole = train(made, tmp_path / "whole")
    run, good = tmp_path / "run", tmp_path / "good"
    for directory in (run, good):
        stop = at_step(16, lambda: signal.raise_signal(signal.SIGTERM))
        train(made, directory, stop)
    assert not differences(whole, resume(made, good))
    assert told in _resumed(made, whole, run, mutant)


def test_every_part_of_a_checkpoint_has_its_mutant(stored: Any) -> None:
    _, whole = stored(RAMP)
    checkpoint = latest(whole.directory / "checkpoints")
    state: Any = checkpoint.documents["state"]
    assert set(state) == {*OF_STATE, *OTHERS}
    assert state["scaler"] == {}
    assert set(checkpoint.tensors) == {"model", "optimizer", "rng"}
    assert set(checkpoint.tensors["rng"]) == set(SOURCES)
    moments = {name.rpartition("/")[2] for name in checkpoint.tensors["optimizer"]}
    assert {f"optimizer {key}" for key in moments} <= set(OF_TENSORS)
    assert {f.name for f in fields(Teacher)} == {*OF_TEACHERS, "model", "events"}
    mutated = {name.partition(" ")[0] for name in OF_WEIGHTS}
    assert {f.name for f in fields(Event)} == {*TOLD, *mutated, "alpha", "seconds"}
