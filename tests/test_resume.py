"""Law 4: a run that was stopped anywhere and resumed ends with the same bits as one that was not.

A run is deterministic, so what stops at step k is what a longer run has stored at step k: one run
with a checkpoint at every step stands for all stops. That storing changes nothing is tested too.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from run_kit import (
    Finished,
    at_step,
    branch,
    differences,
    differing,
    options,
    parts,
    read_rows,
    resume,
    train,
    warming,
)

from progtrain.build import Parts
from progtrain.errors import CheckpointError
from progtrain.run import StopReason
from progtrain.settings import Checkpoints

STEPS = 24
GROWTHS = {
    "schedule": (
        "growth.consolidation=2steps",
        "growth.stages.deeper.at=4steps",
        "growth.stages.wider.at=14steps",
    ),
    "plateau": (
        "growth.consolidation=2steps",
        "growth.trigger.patience=1",
        "growth.trigger.min_delta=10",
        "train.evaluate_every=2steps",
    ),
    "budget": (
        "growth.trigger.interval=3steps",
        "growth.max_params=100000",
        "growth.max_stages=2",
        "growth.consolidation=1steps",
    ),
}
MODELS = {
    "mlp": ("model.width=8",),
    "cnn": ("model.width=4", "model.stages=1", "model.dropout=0.3"),
    "resnet": ("model.width=4", "model.stages=1"),
}
OPTIMIZERS = ("sgd", "adamw", "muon")


def case(warmup: str, growth: str, optimizer: str, model: str, *more: str) -> tuple[str, ...]:
    chosen = (f"growth={growth}", f"optimizer={optimizer}", f"model={model}")
    return (*chosen, *GROWTHS[growth], *MODELS[model], *warming(warmup, "4steps"), *more)


def few_cases() -> list[Any]:
    """Every warmup, and every pair of growth, optimizer and model."""
    warmups = options("warmup")
    rows = [
        (warmups[(3 * i + j) % len(warmups)], growth, optimizer, list(MODELS)[(i + j) % 3])
        for i, growth in enumerate(GROWTHS)
        for j, optimizer in enumerate(OPTIMIZERS)
    ]
    accumulating = ("train.accumulate=2", "train.batch_size=4")
    return [
        pytest.param(case(*row, *(accumulating if i % 4 == 1 else ())), i % 2, id="-".join(row))
        for i, row in enumerate(rows)
    ]


def many_cases() -> list[Any]:
    """Every pair of warmup and growth."""
    rows = [
        (warmup, growth, OPTIMIZERS[i % 3], list(MODELS)[i // 3 % 3])
        for i, (warmup, growth) in enumerate(product(options("warmup"), GROWTHS))
    ]
    return [pytest.param(case(*row), id="-".join(row)) for row in rows]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Parts, Finished]]:
    """Runs with a checkpoint at every step, each trained once."""
    known: dict[tuple[str, ...], tuple[Parts, Finished]] = {}

    def of(*overrides: str) -> tuple[Parts, Finished]:
        if overrides not in known:
            made = parts(*overrides)
            every = replace(made, checkpoint=Checkpoints("1steps", 1000))
            known[overrides] = made, train(every, tmp_path_factory.mktemp("stored"))
        return known[overrides]

    return of


def boundaries(finished: Finished, growth: int) -> list[int]:
    """Steps at which the network grew or that growth entered its next phase."""
    rows = read_rows(finished.directory / "events.jsonl")
    return sorted({row["step"] for row in rows if row.get("index") == growth})


def stops(finished: Finished, growth: int) -> list[int]:
    """Every boundary of one growth, one step before and after it, and the middle between two."""
    edges = boundaries(finished, growth)
    around = {edge + shift for edge in [*edges, STEPS] for shift in (-1, 0, 1)}
    around |= {(one + other) // 2 for one, other in pairwise(edges)}
    return sorted(step for step in around if 1 <= step <= STEPS)


def wrong_stops(made: Parts, whole: Finished, where: list[int], tmp_path: Path) -> dict[int, Any]:
    """Stops after which the end differs from that of `whole`, with what differs."""
    found: dict[int, Any] = {}
    for step in where:
        resumed = resume(made, branch(whole.directory, step, tmp_path / str(step)))
        if differences(whole, resumed):
            found[step] = differences(whole, resumed)
    return found


@pytest.mark.parametrize(("overrides", "growth"), few_cases())
def test_a_run_stopped_around_any_phase_boundary_ends_with_the_same_bits(
    overrides: tuple[str, ...], growth: int, stored: Any, tmp_path: Path
) -> None:
    made, whole = stored(*overrides)
    assert len(whole.run.events) == 2, "the case is to grow twice"
    assert not wrong_stops(made, whole, stops(whole, growth), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", many_cases())
def test_a_run_stopped_at_any_step_ends_with_the_same_bits(
    overrides: tuple[str, ...], stored: Any, tmp_path: Path
) -> None:
    made, whole = stored(*overrides)
    assert not wrong_stops(made, whole, list(range(1, STEPS + 1)), tmp_path)


RATES = [(scheduler, "continue") for scheduler in options("scheduler")]
RATES += list(product(("reduce_on_plateau", "wsd"), options("at_growth")))


@pytest.mark.parametrize(("scheduler", "at_growth"), sorted(set(RATES)))
def test_every_learning_rate_goes_on_where_it_was(
    scheduler: str, at_growth: str, tmp_path: Path
) -> None:
    rate = (f"scheduler={scheduler}", f"at_growth={at_growth}")
    eager = ("scheduler.patience=0",) if scheduler == "reduce_on_plateau" else ()
    made = parts("growth=schedule", *rate, *eager, "checkpoint.every=5steps", "checkpoint.keep=9")
    whole = train(made, tmp_path / "whole")
    assert not wrong_stops(made, whole, [15], tmp_path)


def test_storing_a_run_changes_none_of_its_bits(stored: Any, tmp_path: Path) -> None:
    made, every = stored(*case("cosine_ramp", "schedule", "adamw", "cnn"))
    never = train(made, tmp_path, store=False)
    assert not differences(every, never)


def test_a_resume_with_other_intervals_of_evaluation_trains_the_same_network(
    stored: Any, tmp_path: Path
) -> None:
    made, whole = stored(*case("linear_ramp", "schedule", "adamw", "cnn"))
    rarely = replace(made, train=replace(made.train, evaluate_every="7steps"))
    resumed = resume(rarely, branch(whole.directory, 9, tmp_path / "run"))
    states = [
        {k: v for k, v in run.spy.digest.items() if k.startswith(("model", "optimizer", "rng"))}
        for run in (whole, resumed)
    ]
    assert not differing(*states)


# Signals: the run ends itself, after a step or after a growth, with a checkpoint of its own.


@pytest.mark.parametrize(
    ("call", "step"), [("started", 0), ("stepped", 9), ("stepped", STEPS), ("grew", 14)]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_resumably(
    number: signal.Signals, call: str, step: int, stored: Any, tmp_path: Path
) -> None:
    made, whole = stored(*case("cosine_ramp", "schedule", "adamw", "cnn"))
    ended = train(made, tmp_path, at_step(step, lambda: signal.raise_signal(number), call))
    assert ended.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert ended.run.clock.step == step
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"
    assert not differences(whole, resume(made, tmp_path))


def test_a_run_ended_by_one_signal_after_another_ends_with_the_same_bits(
    stored: Any, tmp_path: Path
) -> None:
    made, whole = stored(*case("frozen_host", "schedule", "muon", "mlp"))
    for step in range(3, STEPS, 4):
        spy = at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        ended = (resume if step > 3 else train)(made, tmp_path, spy)
        assert (ended.exit_code, ended.run.clock.step) == (143, step)
    assert not differences(whole, resume(made, tmp_path))


def test_a_second_signal_ends_at_once_and_the_last_checkpoint_is_good(tmp_path: Path) -> None:
    made = parts("growth=schedule", "checkpoint.every=5steps")
    whole = train(made, tmp_path / "whole")

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "run", at_step(13, twice))
    assert not differences(whole, resume(made, tmp_path / "run"))


# What a resume refuses, and what it survives.


def test_a_resume_with_other_data_is_refused(tmp_path: Path) -> None:
    train(parts("growth=none"), tmp_path)
    for other in ("data.split_seed=1", "data.samples=66", "data=digits", "data.validation=0.3"):
        with pytest.raises(CheckpointError, match="training data differ"):
            resume(parts("growth=none", other), tmp_path)


def test_a_resume_with_another_network_is_refused(tmp_path: Path) -> None:
    train(parts("growth=none"), tmp_path)
    with pytest.raises(CheckpointError, match=r"another network: .*\(8,\).*\(9,\)"):
        resume(parts("growth=none", "model.width=9"), tmp_path)


def test_a_resume_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No checkpoint"):
        resume(parts("growth=none"), tmp_path)


def test_a_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    made = parts("growth=schedule", "train.evaluate_every=7steps")
    whole = train(made, tmp_path)
    bits, result = whole.bits, _result(tmp_path)
    for _ in range(2):
        again = resume(made, tmp_path)
        assert not differing(bits, again.bits)
        assert _result(tmp_path) == result


def _result(directory: Path) -> dict[str, Any]:
    result = json.loads((directory / "result.json").read_text())
    del result["cost"]["uncharged"]["seconds"]  # storing goes on after the last checkpoint
    del result["cost"]["peak_mib"]
    return result


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "MANIFEST.json"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(
    file: str, stored: Any, tmp_path: Path
) -> None:
    made, whole = stored(*case("cosine_ramp", "schedule", "adamw", "cnn"))
    branch(whole.directory, 9, tmp_path / "old")
    branch(whole.directory, 16, tmp_path / "new")
    os.rename(
        tmp_path / "new/checkpoints/step_00000016", tmp_path / "old/checkpoints/step_00000016"
    )
    damaged = tmp_path / "old/checkpoints/step_00000016" / file
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    resumed = resume(made, tmp_path / "old")
    assert resumed.spy.rows[0]["step"] == 10
    assert not differences(whole, resumed)


# What may change at a resume.


def test_a_finished_run_trains_on_when_it_is_made_longer(tmp_path: Path) -> None:
    flat = ("growth=none", "scheduler=constant")
    whole = train(parts(*flat, "train.duration=30steps"), tmp_path / "a")
    train(parts(*flat), tmp_path / "b")
    longer = resume(parts(*flat, "train.duration=30steps"), tmp_path / "b")
    trained = [
        {k: v for k, v in run.spy.digest.items() if k.startswith(("model", "optimizer", "clock"))}
        for run in (whole, longer)
    ]
    assert not differing(*trained)


SMALL = "growth.start={width: 4, depth: 1}"
PLATEAU = ("growth=plateau", "growth.trigger.patience=1", "growth.trigger.min_delta=10")
BUDGET = ("growth=budget", "growth.trigger.interval=4steps")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((*PLATEAU, "growth.max_stages=1"), PLATEAU, StopReason.MAX_STAGES),
        ((*BUDGET, "growth.max_params=200"), BUDGET, StopReason.BUDGET),
        (("growth=none", SMALL), ("growth=schedule", SMALL), StopReason.NOTHING_TO_GROW),
    ],
)
def test_growth_that_was_over_goes_on_when_more_is_allowed(
    before: tuple[str, ...], after: tuple[str, ...], reason: StopReason, tmp_path: Path
) -> None:
    ended = train(parts(*before), tmp_path).run
    assert ended.grown_out is reason
    again = resume(parts(*after, "train.duration=40steps"), tmp_path).run
    assert len(again.events) > len(ended.events)


def test_a_resume_with_another_optimizer_is_refused(tmp_path: Path) -> None:
    train(parts("growth=none", "optimizer=adamw"), tmp_path)
    for other in ("sgd", "muon"):
        with pytest.raises(CheckpointError, match="optimizer"):
            resume(parts("growth=none", f"optimizer={other}", "train.duration=30steps"), tmp_path)
