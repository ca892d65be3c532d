"""The stage machine and what stands around it: steps, batches, evaluation, errors, repetition."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from run_kit import at_step, branch, differences, digest, otherwise, parts, resume, train
from torch.nn import functional as F

from progtrain import evaluation, job
from progtrain.build import Parts
from progtrain.checkpoint.read import latest
from progtrain.clock import Clock, Duration, Moment
from progtrain.contracts import Operator
from progtrain.data.sets import Batches, Normalise, Sets, Split
from progtrain.errors import (
    ConfigError,
    DivergedError,
    EnvironmentProblem,
    GrowthError,
    SettingError,
)
from progtrain.growth.schedule import At, Schedule
from progtrain.growth.triggers import Every, Plateau
from progtrain.run import Event, Observation, Phase, Run
from progtrain.settings import Checkpoints

# Steps.


def test_the_clock_counts_optimizer_steps_and_all_of_their_samples(tmp_path: Path) -> None:
    ended = train(
        parts("growth=none", "train.batch_size=4", "train.accumulate=3"), tmp_path, store=False
    )
    now = ended.run.clock.now
    assert (now.step, now.samples) == (24, 24 * 12)
    assert now.flops == now.samples * ended.run.flops
    assert [row["step"] for row in ended.spy.rows] == list(range(1, 25))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_accumulated_small_batches_are_one_large_batch(optimizer: str, tmp_path: Path) -> None:
    base = ("growth=schedule", "model.norm=none", f"optimizer={optimizer}", "optimizer.lr=1e-3")
    runs = [
        train(parts(*base, f"train.batch_size={size}", f"train.accumulate={count}"), tmp_path / at)
        for at, size, count in (("one", 16, 1), ("two", 8, 2), ("four", 4, 4))
    ]
    one = runs[0]
    for other in runs[1:]:
        assert other.spy.losses == pytest.approx(one.spy.losses, rel=1e-4)
        wanted = dict(one.run.model.named_parameters())
        for name, parameter in other.run.model.named_parameters():
            torch.testing.assert_close(parameter, wanted[name], rtol=1e-2, atol=1e-4)


def test_gradients_are_clipped_to_their_norm(tmp_path: Path) -> None:
    made = parts("growth=none", "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")
    made = replace(made, train=replace(made.train, clip=0.01))
    before: list[torch.Tensor] = []
    moved: list[float] = []

    def note(call: str, run: Run) -> None:
        now = torch.cat([p.detach().flatten() for p in run.model.parameters()])
        if call == "stepped" and before:
            group = next(iter(run.optimizer.groups()))
            decay = group["lr"] * 5e-4 * float(before[-1].norm())
            moved.append((float((now - before[-1]).norm()) - decay) / group["lr"])
        before.append(now.clone())

    spy = at_step(0, lambda: None)
    spy.act = note
    train(made, tmp_path, spy, store=False)
    assert len(moved) == 24
    assert max(moved) <= 0.01 * (1 + 1e-3)


# Batches and evaluation.


def batches(count: int, seed: int = 3) -> Batches:
    x = torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1)
    split = Split(x, torch.arange(count))
    sets = Sets(split, split, None, Normalise(1.0, (0.0,), (1.0,)))
    return Batches(sets, seed, torch.device("cpu"))


def test_batches_are_a_function_of_seed_and_position() -> None:
    stream = batches(13).indices(0, 13 * 4)
    for position in range(0, 40):
        for size in (1, 5, 12):
            fresh = batches(13)
            with otherwise():
                got = fresh.indices(position, size)
            assert torch.equal(got, stream[position : position + size])
            x, y = fresh.at(position, size)
            assert torch.equal(x.flatten().long(), got)
            assert torch.equal(y, got)
    assert not torch.equal(stream, batches(13, seed=4).indices(0, 13 * 4))


def test_every_sample_comes_once_an_epoch_in_another_order_each() -> None:
    epochs = batches(13).indices(0, 13 * 5).reshape(5, 13)
    assert torch.equal(epochs.sort(1).values, torch.arange(13).expand(5, 13))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 5


def test_a_batch_may_be_longer_than_an_epoch() -> None:
    assert torch.equal(batches(3).indices(1, 10), batches(3).indices(0, 11)[1:])


def test_evaluation_is_exact_over_an_uneven_last_batch(tmp_path: Path) -> None:
    made = parts("growth=none", "train.duration=5steps")
    with mock.patch.object(evaluation, "_EVALUATION_BATCH", 5):
        ended = train(made, tmp_path, store=False)
    split = made.data.load().validation
    assert len(split) % 5, "the last batch is to be smaller"
    model = ended.run.model.eval()
    with torch.no_grad():
        logits = model(made.data.load().normalise(split.x))
    metrics = ended.run.history[-1].metrics
    right = int((logits.argmax(1) == split.y).sum())
    assert metrics["val/accuracy"] == right / len(split)
    assert metrics["val/loss"] == pytest.approx(float(F.cross_entropy(logits, split.y)), rel=1e-6)


def test_evaluating_in_other_batches_gives_the_same_metrics(tmp_path: Path) -> None:
    made = parts("growth=schedule")
    whole = train(made, tmp_path / "a", store=False)
    with mock.patch.object(evaluation, "_EVALUATION_BATCH", 3):
        small = train(made, tmp_path / "b", store=False)
    for one, other in zip(whole.run.history, small.run.history, strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-6)


# Triggers.


def seen(values: list[float], since: int | None = None, mode: str = "max") -> Run:
    """A run that has seen one value a step; its last growth was integrated at step `since`."""
    clock = Clock(Duration.parse("100steps", "total"), 8, Moment(len(values)))
    run: Any = Run(0, clock, None, None, None, "val/accuracy", mode)  # type: ignore[arg-type]
    run.history = [
        Observation(Moment(step), 0.0, {"val/accuracy": value})
        for step, value in enumerate(values, 1)
    ]
    if since is not None:
        moment, edit = Moment(since), None
        event = Event(
            0, "a", "", edit, moment, Phase.INTEGRATED, moment, (), (), 1, 2, 1.0, 2.0, True, 0.0,
            None,
        )  # type: ignore[arg-type]  # fmt: skip
        run.events = [event]
    return run


def test_a_plateau_is_due_when_nothing_in_the_window_beats_the_best_before() -> None:
    trigger = Plateau(patience=2)
    assert not trigger.due(seen([0.5, 0.4]))
    assert trigger.due(seen([0.5, 0.4, 0.5]))
    assert not trigger.due(seen([0.5, 0.4, 0.6]))
    assert not trigger.due(seen([0.5, 0.7, 0.6]))
    assert not Plateau(patience=3).due(seen([0.5, 0.4, 0.5]))


def test_a_growth_empties_the_plateau_window_and_the_best_is_kept() -> None:
    trigger, values = Plateau(patience=2), [0.5, 0.9, 0.4, 0.4]
    assert trigger.due(seen(values, since=2))
    assert not trigger.due(seen(values, since=3)), "one observation since then is too few"
    assert not trigger.due(seen(values, since=4))
    assert not trigger.due(seen([*values, 0.95], since=3)), "better than the best of the host"
    assert trigger.due(seen([*values, 0.6], since=3)), "better than after the growth only"


def test_what_counts_as_improvement_is_min_delta() -> None:
    values = [0.5, 0.5, 0.55]
    assert not Plateau(patience=2, min_delta=0.04).due(seen(values))
    assert Plateau(patience=2, min_delta=0.06).due(seen(values))


def test_less_is_better_where_the_mode_is_min() -> None:
    assert Plateau(patience=2, mode="min").due(seen([0.5, 0.6, 0.7]))
    assert not Plateau(patience=2, mode="min").due(seen([0.5, 0.6, 0.4]))


def test_a_slow_rise_is_a_plateau_only_where_a_threshold_is_set() -> None:
    rising, falling_back = [0.5, 0.51, 0.52], [0.5, 0.9, 0.6]
    with pytest.raises(SettingError, match="set patience to 2"):
        Plateau(patience=1, threshold=0.05)  # it would never be looked at
    assert Plateau(patience=2, threshold=0.05).due(seen(rising))
    assert not Plateau(patience=2, threshold=0.01).due(seen(rising))
    assert not Plateau(patience=2).due(seen(falling_back)), "the window holds a new best"
    assert not Plateau(patience=2).due(seen([0.6, 0.5])), "nothing came before the window"


def test_an_interval_begins_when_the_last_growth_was_integrated() -> None:
    trigger, values = Every("10steps"), [0.0] * 14
    assert trigger.due(seen(values))
    assert not trigger.due(seen(values, since=5))
    assert trigger.due(seen(values, since=4))


# Errors.


@dataclass(frozen=True)
class Breaks:
    """An operator that works until it is told to break."""

    operator: Operator
    broken: list[bool] = field(default_factory=lambda: [False])
    preserves = False
    shares = False

    def propose(self, host: Any) -> Any:
        if self.broken[0]:
            raise GrowthError("this operator is broken")
        return self.operator.propose(host)

    def fill(self, grown: Any, generator: torch.Generator) -> None:
        self.operator.fill(grown, generator)

    def flops(self, grown: Any) -> float:
        return self.operator.flops(grown)


def breaking() -> tuple[Parts, Breaks]:
    made = parts("growth=schedule", "growth.stages.deeper.at=3steps", "warmup=cosine_ramp")
    assert isinstance(made.growth, Schedule)
    broken = Breaks(made.growth.stages["wider"].operator)
    stages = {**made.growth.stages, "wider": At("12steps", broken)}
    return replace(made, growth=replace(made.growth, stages=stages)), broken


@pytest.mark.parametrize("every", ["5steps", "100%"])
def test_a_growth_that_fails_leaves_a_checkpoint_from_which_the_run_goes_on(
    every: str, tmp_path: Path
) -> None:
    made, operator = breaking()
    whole = train(made, tmp_path / "whole")
    made = replace(made, checkpoint=Checkpoints(every, 2))
    states: list[dict[str, str]] = []

    def breaks(broken: bool) -> None:
        assert spy.run is not None
        operator.broken[0] = broken
        states.append(digest(spy.run))

    spy = at_step(12, lambda: breaks(True))
    with pytest.raises(GrowthError, match="broken"):
        train(made, tmp_path / "run", spy)
    assert spy.run is not None
    states.append(digest(spy.run))
    assert {**states[0], "memory": ""} == {**states[1], "memory": ""}, "the run is as it was"
    assert latest(tmp_path / "run/checkpoints").step == 12
    operator.broken[0] = False
    assert not differences(whole, resume(made, tmp_path / "run"))


WILD = ("growth=none", "optimizer=sgd", "model.norm=none", "optimizer.lr=1e5")


@pytest.mark.parametrize("evaluate", ["1steps", "24steps"])
def test_a_run_that_diverges_says_so_and_keeps_a_finite_checkpoint(
    evaluate: str, tmp_path: Path
) -> None:
    made = parts(*WILD, "checkpoint.every=1steps", f"train.evaluate_every={evaluate}")
    with pytest.raises(DivergedError, match=r"optimizer\.lr") as caught:
        train(made, tmp_path)
    assert caught.value.exit_code == 3
    stored = list((tmp_path / "checkpoints").glob("step_*"))
    assert stored
    for path in stored:
        folder = branch(tmp_path, int(path.name[5:]), tmp_path / path.name) / "checkpoints"
        for tensor in latest(folder).tensors["model"].values():
            assert bool(torch.isfinite(tensor.float()).all())
    if evaluate == "1steps":  # else the weights are already too large
        assert resume(parts(*WILD, "optimizer.lr=1e-3"), tmp_path).run.clock.step == 24


def test_a_metric_that_nobody_logs_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"growth\.(trigger\.)?metric.*val/accuracy.*val/f1"):
        train(parts("growth=plateau", "growth.trigger.metric=val/f1"), tmp_path, store=False)


# Repetition (law 8).

EVERYTHING = ("growth=schedule", "model=cnn", "model.width=4", "model.dropout=0.3")


def test_the_same_seed_gives_the_same_run_whatever_the_process_did_before(tmp_path: Path) -> None:
    made = parts(*EVERYTHING, "warmup=cosine_ramp")
    first = train(made, tmp_path / "first", store=False)
    with otherwise():
        second = train(made, tmp_path / "second", store=False)
    assert not differences(first, second)


def test_a_job_is_the_same_alone_and_after_another_job(tmp_path: Path) -> None:
    """The first job of a process counts FLOPs; later ones know them."""
    from progtrain import flops

    made = parts(*EVERYTHING)
    with mock.patch.object(flops, "_COUNTED", {}):
        alone = train(made, tmp_path / "alone", store=False)
    random.random(), np.random.rand(), torch.rand(3)
    train(parts("growth=budget", "optimizer=muon", "seed=5"), tmp_path / "other", store=False)
    after = train(made, tmp_path / "after", store=False)
    assert not differences(alone, after)


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    one = train(parts("growth=none"), tmp_path / "one", store=False)
    other = train(parts("growth=none", "seed=1"), tmp_path / "other", store=False)
    assert any(name.startswith("model/") for name in differences(one, other))


def test_where_the_data_lie_and_auto_hardware_change_no_bits(tmp_path: Path) -> None:
    one = train(parts(*EVERYTHING), tmp_path / "cpu", store=False)
    for i, more in enumerate((("hardware.data_on_device=false",), ("hardware=auto",))):
        if more != ("hardware=auto",) or not torch.cuda.is_available():
            other = train(parts(*EVERYTHING, *more), tmp_path / str(i), store=False)
            assert not differences(one, other)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="hardware"):
        train(parts("growth=none", "hardware=gpu", "hardware.precision=fp32"), tmp_path)


def test_planning_draws_no_random_number(tmp_path: Path) -> None:
    """A resumed run plans less than a new one."""
    made = parts(*EVERYTHING)
    with mock.patch.object(job, "plan", lambda run, setup: []):
        unplanned = train(made, tmp_path / "unplanned", store=False)
    planned = train(made, tmp_path / "planned", store=False)
    assert {d for d in differences(unplanned, planned)} <= {"events.jsonl:0"}
