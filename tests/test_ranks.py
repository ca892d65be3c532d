"""Runs of two processes on a CPU: the same run as one process makes, to rounding."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from growth_kit import a_machine, a_model, make
from ranks_kit import Ranks, group, ranks, values
from run_kit import Spy, parts, train
from test_nonfinite import nan_in_the_data

from progtrain import boundary, evaluation, job, steps
from progtrain.debug import determinism
from progtrain.errors import DivergedError, FoundError
from progtrain.evaluation import evaluate_network
from progtrain.growth.schedule import Schedule
from progtrain.hardware import replicas
from progtrain.hardware.shards import local
from progtrain.machine import Machine
from progtrain.nonfinite import finite_weights
from progtrain.run import Run, StopReason

# SGD: under Adam a bias before a norm, whose gradient is rounding alone, moves by whole steps
STEADY = ("optimizer=sgd", "optimizer.lr=0.01", "train.accumulate=2", "train.batch_size=8")
TWICE = ("growth.stages.deeper.at=6steps", "growth.stages.wider.at=12steps")
RAMP = ("warmup=linear_ramp", "warmup.length=3steps", "train.clip=1", "train.ema=0.9")
AGAIN = ("hardware.activation_checkpointing=true",)
GROWN = ("growth=schedule", *STEADY, *TWICE, *RAMP, "train.duration=20steps")
SAME = ("losses", "digest", "history", "clock", "grown")


def trained(
    overrides: tuple[str, ...], directory: Path, again: bool = False, shards: bool = False
) -> dict[str, Any]:
    """What a run comes to, on this rank."""
    made, spy, many = replace(parts(*overrides), resume=again), Spy(), job.Many
    if "RANK" in os.environ:
        recomputes = bool(made.config["hardware"]["activation_checkpointing"])
        made = replace(made, hardware=Ranks(shards, recomputes))

    def told(others: list[Any]) -> Any:  # the kit's spy would ask for shards on rank 0 alone
        return many([*(each for each in others if not isinstance(each, Spy)), spy])

    with mock.patch.object(job, "Many", told):
        train(made, directory)
    assert spy.run is not None
    history = [observation.metrics for observation in spy.run.history]
    grown = [event.stage for event in spy.run.events]
    found = {"losses": spy.losses, "digest": spy.digest, "grown": grown, "history": history}
    found["memory"] = dict(spy.run.memory)
    found["undone"] = [event.undone for event in spy.run.events]
    return {**found, "notes": spy.notes, "clock": spy.run.clock.now}


def alike(told: list[dict[str, Any]]) -> None:
    for other in told[1:]:
        assert {key: other[key] for key in SAME} == {key: told[0][key] for key in SAME}


def close(mine: dict[str, Any], one: dict[str, Any], rel: float = 1e-5) -> None:
    assert mine["grown"] == one["grown"]
    assert mine["losses"] == pytest.approx(one["losses"], rel=rel)
    for own, other in zip(mine["history"], one["history"], strict=True):
        assert own == pytest.approx(other, rel=rel, abs=1e-6)


@pytest.mark.parametrize("shards", [False, True], ids=["replicas", "shards"])
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(RAMP, id="ramp, accumulation, clipping, average"),
        pytest.param(("warmup=frozen_host", "warmup.isolation=3steps"), id="frozen host"),
        pytest.param(("transfer=distill", "warmup=zero_init"), id="teacher"),
        pytest.param(
            (
                "model=gpt",
                "model.tied=true",
                "model.width=16",
                "data=text",
                "data.bytes=4000",
                *AGAIN,
            ),
            id="text, tied weights, computed again",
        ),
        pytest.param(("model=cnn", "augment=standard", "data.shape=[1,8,8]"), id="images"),
    ],
)
def test_two_processes_make_the_run_of_one(
    chosen: tuple[str, ...], shards: bool, tmp_path: Path
) -> None:
    settings = ("growth=schedule", *STEADY, *TWICE, "train.duration=20steps", *chosen)
    one = trained(settings, tmp_path / "one")
    two = values(2, trained, settings, tmp_path / "two", False, shards)
    assert len(one["grown"]) == 2
    alike(two)
    close(two[0], one)


BUDGET = ("growth=budget", "growth.trigger.interval=25%", "growth.max_stages=2")
STAGE_HEAD = "{_target_: progtrain.growth.schedule.At, at: 70%, operator: ${head}}"


def disturbed(overrides: tuple[str, ...], directory: Path, shards: bool = False) -> dict[str, Any]:
    """A run whose inputs of steps 10 and 18 are not numbers, on every rank."""
    with nan_in_the_data(10, 18):
        return trained(overrides, directory, False, shards)


@pytest.mark.parametrize("shards", [False, True], ids=["replicas", "shards"])
@pytest.mark.parametrize(
    ("chosen", "run", "grown"),
    [
        pytest.param((*BUDGET, "growth/choice=steepest"), trained, 2, id="slope"),
        pytest.param(
            (*BUDGET, "growth/choice=trial", "growth.choice.steps=2"), trained, 2, id="trial"
        ),
        pytest.param(
            ("growth=schedule", *TWICE, "growth.keep_if='val/accuracy > 2'", *RAMP),
            trained,
            3,
            id="a growth that does not pay",
        ),
        pytest.param(
            (
                "growth=schedule",
                *TWICE,
                *RAMP,
                "nonfinite.policy=rollback",
                "nonfinite.back=4steps",
            ),
            disturbed,
            3,
            id="not finite",
        ),
        pytest.param(
            ("growth=schedule", "head=stage", f"+growth.stages.classes={STAGE_HEAD}"),
            trained,
            3,
            id="heads",
        ),
    ],
)
def test_two_processes_look_undo_and_go_back_as_one(
    chosen: tuple[str, ...], run: Callable[..., Any], grown: int, shards: bool, tmp_path: Path
) -> None:
    settings = (*STEADY, "train.duration=20steps", *chosen)
    one = run(settings, tmp_path / "one")
    arguments = (False, shards) if run is trained else (shards,)
    two = values(2, run, settings, tmp_path / "two", *arguments)
    assert len(one["grown"]) == grown
    alike(two)
    close(two[0], one)
    assert one["undone"] == two[0]["undone"]


def test_a_run_goes_on_with_other_processes_and_in_shards(tmp_path: Path) -> None:
    """One, two in shards, two with the whole, one: the samples and growths of an unbroken run."""
    stops = [(*GROWN, "scheduler=constant", f"train.duration={n}steps") for n in (16, 18, 20, 22)]
    whole = trained(stops[-1], tmp_path / "whole")
    first = trained(stops[0], tmp_path / "moving")
    second = values(2, trained, stops[1], tmp_path / "moving", True, True)[0]
    third = values(2, trained, stops[2], tmp_path / "moving", True)[0]
    fourth = trained(stops[3], tmp_path / "moving", True)
    losses = [loss for each in (first, second, third, fourth) for loss in each["losses"]]
    assert losses == pytest.approx(whole["losses"], rel=1e-5)
    assert fourth["grown"] == whole["grown"] == ["deeper", "wider"]


LONG = ("growth=schedule", "train.duration=200steps", "optimizer=sgd", "optimizer.lr=0.01")
SMALL_GPT = ("model=gpt", "model.width=16", "data=text", "data.bytes=4000", "data.length=32")


def apart(one: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """The largest relative difference of losses, for every twenty steps."""
    pairs = zip(one["losses"], other["losses"], strict=True)
    found = [abs(a - b) / abs(a) for a, b in pairs]
    return [max(found[i : i + 20]) for i in range(0, len(found), 20)]


def nudged(run: Run, *rest: Any) -> Machine:
    """A run one of whose weights differ in their last bits."""
    with torch.no_grad():
        next(run.model.parameters()).mul_(1 + 6e-8)
    return Machine(run, *rest)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [False, True], ids=["replicas", "shards"])
def test_two_hundred_steps_with_two_growths_differ_by_rounding(
    shards: bool, tmp_path: Path
) -> None:
    """A GPT by some units in the last place; a CNN, whose batch norms amplify whatever differs, by
    no more than a run of one process does when the last bits of one tensor are others."""
    for name, model in (("gpt", SMALL_GPT), ("cnn", ("model=cnn", "data.shape=[1,8,8]"))):
        one = trained((*LONG, *model), tmp_path / name)
        two = values(2, trained, (*LONG, *model), tmp_path / f"{name}_2", False, shards)
        alike(two)
        assert two[0]["grown"] == one["grown"] == ["deeper", "wider"]
        print(f"{name}, largest difference: {max(apart(one, two[0])):.0e} of the loss")
        if name == "gpt":
            assert max(apart(one, two[0])) < 2e-6
            continue
        with mock.patch.object(job, "Machine", nudged):
            other = trained((*LONG, *model), tmp_path / "nudged")
        print(f"one process, last bits of a tensor changed: {max(apart(one, other)):.0e}")
        for ours, theirs in zip(apart(one, two[0]), apart(one, other), strict=True):
            assert ours < 20 * theirs + 1e-7


def on_rank_1(real: Callable[..., Any], otherwise: Callable[[Any, Any], Any]) -> Any:
    return otherwise if os.environ["RANK"] == "1" else real


def disagreeing(overrides: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """Rank 1 would grow at once, and never when rank 0 does; later it would stop."""

    def otherwise(policy: Schedule, run: Run) -> Any:
        due = real(policy, run)
        if due is None and run.clock.step in (3, 16):
            return policy.upcoming(run) if run.clock.step == 3 else StopReason.MAX_STAGES
        return None

    real = Schedule.next
    with mock.patch.object(Schedule, "next", on_rank_1(real, otherwise)):
        return trained(overrides, directory)


def test_ranks_that_disagree_do_what_rank_0_decides(tmp_path: Path) -> None:
    chosen = GROWN
    told = values(2, disagreeing, chosen, tmp_path / "two")
    alike(told)
    close(told[0], trained(chosen, tmp_path / "one"))
    notes = [note for note in told[0]["notes"] if "disagreed" in note]
    assert "process 0 decides (0: go on; 1: grow deeper)" in notes[0]
    assert "(0: grow deeper; 1: go on)" in notes[1]


def transacting(
    otherwise: Callable[..., Any], overrides: tuple[str, ...], directory: Path, shards: bool
) -> dict[str, Any]:
    """A run in which rank 1 grows by `otherwise` what it would grow."""
    mine = on_rank_1(boundary.transact, partial(otherwise, boundary.transact))
    with mock.patch.object(boundary, "transact", mine):
        return trained(overrides, directory, False, shards)


def failing(*_: Any) -> Any:
    raise MemoryError("no room")


def test_where_one_rank_cannot_grow_none_does(tmp_path: Path) -> None:
    told = ranks(2, transacting, failing, GROWN, tmp_path / "two", False)
    assert [each.kind for each in told] == ["GrowthMemoryError", "GrowthMemoryError"]
    assert all("no room; " in each.error for each in told)
    assert all("(told by process 1 of 2; none has grown)" in each.error for each in told)
    resumed = trained(GROWN, tmp_path / "two", True)  # what it stored is whole
    assert resumed["grown"] == ["deeper", "wider"]


def strayed(transact: Callable[..., Any], run: Run, *rest: Any) -> Any:
    """An operator's new weights come out otherwise, as they may on a GPU."""
    event = transact(run, *rest)
    for parameter in run.model.parameters():
        parameter.data.add_(1e-3)
    for name in run.optimizer.parameters:
        for state in run.optimizer.state_of(name).values():
            state.add_(1e-3)
    return event


@pytest.mark.parametrize("shards", [False, True], ids=["replicas", "shards"])
def test_what_has_grown_is_equal_to_the_bit(shards: bool, tmp_path: Path) -> None:
    """DDP itself would send weights when it is made, but nothing that an optimizer remembers."""
    told = values(2, transacting, strayed, GROWN, tmp_path / "two", shards)
    alike(told)
    close(told[0], trained(GROWN, tmp_path / "one"))


def withholding(
    overrides: tuple[str, ...], directory: Path, fused: bool, reads: bool
) -> dict[str, Any]:
    """A run in shards with or without a look at the flags of its steps. Inputs of steps 10 and 18
    are not numbers, and in step 5 one rank alone finds a gradient that is not finite."""
    usual, look, seen = torch.optim.AdamW, steps.nonfinite, count(1)

    def adam(*given: Any, **named: Any) -> torch.optim.Optimizer:
        return usual(*given, **(named | {"fused": fused}))

    def looked(tensors: list[torch.Tensor]) -> torch.Tensor:
        return look(tensors) + float(next(seen) == 5 and os.environ["RANK"] == "1")

    with (
        mock.patch.object(steps, "nonfinite", looked),
        mock.patch.object(steps, "reading_is_free", lambda _: reads),
        mock.patch.object(torch.optim, "AdamW", adam),
    ):
        return disturbed(overrides, directory, True)


@pytest.mark.parametrize(
    ("optimizer", "fused"), [("sgd", False), ("adamw", False), ("adamw", True)]
)
def test_in_shards_a_step_is_withheld_without_waiting_for_the_device(
    optimizer: str, fused: bool, tmp_path: Path
) -> None:
    settings = (*GROWN, f"optimizer={optimizer}", "nonfinite.policy=skip")
    read = values(2, withholding, settings, tmp_path / "read", fused, True)
    told = values(2, withholding, settings, tmp_path / "told", fused, False)
    for found in (*read, *told):
        assert found["memory"]["nonfinite/skipped"] == 3
        del found["digest"]["memory"]  # the order of its words
        found["clock"] = replace(found["clock"], seconds=0.0)
    alike([*read, *told])
    assert len(told[0]["grown"]) == 2


@pytest.mark.parametrize(("beta", "counted"), [(0.3, True), (0.1, False)])  # 13 and 7 steps
def test_in_shards_counts_go_when_the_youngest_entries_of_all_are_old(
    beta: float, counted: bool, tmp_path: Path
) -> None:
    """The last growth is 8 steps past, so that rank 0 with old rows alone would let them go."""
    settings = (*GROWN, "optimizer=adamw", f"optimizer.beta1={beta}", f"optimizer.beta2={beta}")
    one = trained(settings, tmp_path / "one")
    told = values(2, trained, settings, tmp_path / "two", False, True)
    alike(told)
    for found in (one, *told):
        assert any("ones1" in name for name in found["digest"]) is counted


def own_place(directory: Path) -> Path:
    """A directory of this rank's own: what it stores there it would store beside rank 0."""
    own = directory / os.environ["RANK"]
    own.mkdir(parents=True)
    return own


def left(own: Path) -> list[str]:
    return sorted(each.name for each in own.iterdir())


def twice(directory: Path, shards: bool, found: str) -> tuple[str, list[str]]:
    """What is said of a run that is made twice, and the files of this rank; `found` is what rank 1
    alone finds different."""
    compared, own = determinism.compared, own_place(directory)

    def seen(*given: Any) -> str:
        return found if os.environ["RANK"] == "1" else compared(*given)

    settings = (*GROWN, "debug=determinism")
    with mock.patch.object(determinism, "compared", seen if found else compared):
        try:
            trained(settings, own, False, shards)
        except FoundError as error:
            return str(error), left(own)
    told = own / "debug.txt"
    return told.read_text() if told.exists() else "", left(own)


@pytest.mark.parametrize("shards", [False, True], ids=["replicas", "shards"])
def test_a_run_of_two_processes_is_held_against_itself(shards: bool, tmp_path: Path) -> None:
    (told, _), others = values(2, twice, tmp_path / "a", shards, "")
    assert "20 steps and 2 growths are equal in every bit" in told
    assert "stored and resumed at step 10" in told
    assert others == ("", [])  # one process tells and stores
    assert [text for text, _ in values(2, twice, tmp_path / "b", shards, "no")] == ["no", "no"]


def profiled(directory: Path) -> list[str]:
    settings = ("growth=none", *STEADY, "train.duration=10steps", "debug=profile", "debug.wait=2")
    trained(settings, own := own_place(directory))
    return left(own)


def test_of_several_processes_one_stores_its_profile(tmp_path: Path) -> None:
    first, other = values(2, profiled, tmp_path)
    assert {"trace.json", "debug.txt"} <= set(first)
    assert other == []


def diverging(directory: Path) -> tuple[str, str, list[str]]:
    """What is said of a gradient that is not finite in rank 1's shard alone, and what is kept."""
    own, usual = own_place(directory), steps._withheld

    def withheld(run: Run, *rest: Any) -> Any:
        if os.environ["RANK"] == "1" and run.clock.step == 6:
            part = local(run.optimizer.parameters["head.weight"].grad)
            part.view(-1)[-1] = float("inf")
        return usual(run, *rest)

    with (
        mock.patch.object(steps, "_withheld", withheld),
        pytest.raises(DivergedError, match="A gradient is not finite at step 7") as caught,
    ):
        trained(("growth=none", *STEADY), own, shards=True)
    assert caught.value.facts is not None
    return (
        str(caught.value.facts["gradients_not_finite"]),
        str(caught.value.facts["batch"]),
        left(own),
    )


def test_all_processes_tell_the_same_of_a_shard_that_diverged_and_one_stores_it(
    tmp_path: Path,
) -> None:
    (bad, batch, files), (*same, none) = values(2, diverging, tmp_path)
    assert bad == "['head.weight']" and [bad, batch] == same
    assert "diverged.json" in files and none == []


def finite(bad: bool) -> bool:
    engine = Ranks(True).open()
    weight = torch.tensor(float("nan") if bad and engine.group.rank == 1 else 1.0)
    run: Any = mock.Mock()
    run.optimizer.parameters = {"weight": torch.nn.Parameter(weight)}
    return finite_weights(run, engine)


@pytest.mark.parametrize("bad", [False, True])
def test_all_processes_know_of_weights_that_are_not_finite_in_one_shard(bad: bool) -> None:
    assert values(2, finite, bad) == [not bad, not bad]


def counted(samples: int) -> dict[str, float]:
    machine = a_machine(a_model("cnn"), make("optimizer", "sgd"))
    setup, split = machine.setup, machine.setup.batches.sets.validation
    few = replace(split, x=split.x[:samples], y=split.y[:samples])
    if "RANK" in os.environ:
        setup.engine.group = group()
    with mock.patch.object(evaluation, "_EVALUATION_BATCH", 2):
        return evaluate_network(machine.run.model, setup, few, "val")


@pytest.mark.parametrize("samples", [1, 7])
def test_an_evaluation_counts_every_sample_once(samples: int) -> None:
    """Of the last sample, alone in its batch, one process has none, and still takes part."""
    told = values(2, counted, samples)
    assert told[0] == told[1] == pytest.approx(counted(samples), rel=1e-6)


def numbers() -> tuple[list[float], list[float]]:
    with replicas.own_numbers(group(), 3, 64):
        inside = torch.rand(3).tolist()
    return inside, torch.rand(3).tolist()


def test_random_numbers_of_forward_passes_differ_and_no_others() -> None:
    (mine, after), (theirs, after_too) = values(2, numbers)
    assert not set(mine) & set(theirs) and after == after_too
