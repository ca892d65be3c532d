"""Lengths, limits and budgets: counted exactly, binding, never exceeded; and why a run ended."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from omegaconf import OmegaConf
from run_kit import Finished, at_step, config, parts, train

from progtrain import stepper
from progtrain.errors import ConfigError, ProgtrainError
from progtrain.growth.choice import expected_gain
from progtrain.growth.grow import Host, grow
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.run import StopReason

BUDGET = ("growth=budget", "growth.trigger.interval=4steps", "growth.max_params=1000000")
STILL = ("model.norm=none", "optimizer.lr=1e-9")  # nothing improves
PLATEAU = (
    "growth=plateau",
    "growth.trigger.patience=1",
    "growth.trigger.min_delta=10",
    "growth.consolidation=1steps",
    "train.evaluate_every=3steps",
)


@contextmanager
def steps_of(seconds: float) -> Generator[None]:
    """The machine's clock: an optimizer step takes so long, a growth nothing."""
    readings = iter(range(10**6))
    clock = SimpleNamespace(perf_counter=lambda: next(readings) * seconds)
    still = SimpleNamespace(perf_counter=lambda: 0.0)
    with (
        mock.patch.object(stepper, "time", clock),
        mock.patch("progtrain.growth.transaction.time", still),
    ):
        yield


def run(directory: Path, *overrides: str) -> Finished:
    return train(parts(*overrides), directory, store=False)


def growth_steps(finished: Finished) -> list[int]:
    return [event.moment.step for event in finished.run.events]


# Lengths: an epoch has 49 samples, a step 8.


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("10steps", 10),
        ("1epochs", 7),
        ("2 epochs", 13),
        ("48samples", 6),
        ("49samples", 7),
        ("1epoch", 7),
        ("3.5seconds", 7),
    ],
)
def test_a_run_is_as_long_as_its_duration_in_whole_steps(
    duration: str, steps: int, tmp_path: Path
) -> None:
    with steps_of(0.5):
        ended = run(tmp_path, "growth=none", f"train.duration='{duration}'")
    assert ended.run.clock.step == len(ended.spy.losses) == steps
    assert ended.run.clock.now.samples == 8 * steps
    assert ended.run.stopped is StopReason.DURATION


@pytest.mark.parametrize("share", [1.0, 2.5, 3.0])
def test_a_run_in_flops_ends_with_the_step_that_passes_them(share: float, tmp_path: Path) -> None:
    whole = run(tmp_path, "growth=none").run
    flops = whole.flops * whole.batch_size
    ended = run(tmp_path, "growth=none", f"train.duration={share * flops}flops")
    assert ended.run.clock.step == ceil(share)
    assert ended.run.clock.now.flops == ceil(share) * flops


@pytest.mark.parametrize(
    ("at", "step"),
    [
        ("8steps", 8),
        ("1.5epochs", 10),
        ("60samples", 8),
        ("64samples", 8),
        ("25%", 6),
        ("2.5seconds", 5),
        ("1flops", 1),
        ("0steps", 0),
    ],
)
def test_a_stage_grows_with_the_first_step_that_reaches_its_time(
    at: str, step: int, tmp_path: Path
) -> None:
    with steps_of(0.5):
        ended = run(
            tmp_path,
            "growth=schedule",
            f"growth.stages.deeper.at={at}",
            "growth.stages.wider.at=20steps",
        )
    assert growth_steps(ended) == [step, 20]


def test_a_stage_beyond_the_end_is_refused_before_the_first_step(tmp_path: Path) -> None:
    for at in ("24steps", "100%", "192samples", "4epochs"):
        with pytest.raises(ProgtrainError, match=r"growth\.stages\.wider\.at"):
            run(tmp_path, "growth=schedule", f"growth.stages.wider.at={at}")


# Limits of a run.


def test_no_step_is_taken_that_passes_the_flop_limit(tmp_path: Path) -> None:
    whole = run(tmp_path, "growth=schedule").run
    for share in (0.9, 0.5, 0.21):
        limit = share * whole.clock.now.flops
        ended = run(tmp_path, "growth=schedule", f"stop.max_flops={limit}").run
        assert ended.stopped is StopReason.FLOPS
        assert ended.clock.now.flops <= limit < ended.clock.now.flops + 8 * ended.flops


def test_the_time_limit_ends_a_run_with_the_step_that_reaches_it(tmp_path: Path) -> None:
    with steps_of(0.5):
        ended = run(tmp_path, "growth=none", "stop.max_seconds=4.0").run
    assert (ended.clock.step, ended.clock.now.seconds) == (8, 4.0)
    assert ended.stopped is StopReason.SECONDS


@pytest.mark.parametrize(("metric", "mode"), [("val/accuracy", "max"), ("val/loss", "min")])
def test_the_target_ends_a_run_at_the_first_evaluation_that_reaches_it(
    metric: str, mode: str, tmp_path: Path
) -> None:
    watch = ("growth=none", f"train.metric={metric}", f"train.mode={mode}", "optimizer.lr=0.03")
    more = (*watch, "train.evaluate_every=1steps", "train.duration=60steps")
    history = [seen.metrics[metric] for seen in run(tmp_path, *more).run.history]
    better = (lambda a, b: a >= b) if mode == "max" else (lambda a, b: a <= b)
    target = sorted(history)[40 if mode == "max" else 20]
    first = next(i for i, value in enumerate(history) if better(value, target))
    assert 0 < first < 59
    ended = run(tmp_path, *more, f"stop.target={target}").run
    assert (ended.stopped, ended.clock.step) == (StopReason.TARGET, first + 1)


def test_a_plan_beyond_the_parameter_limit_is_refused_before_the_first_step(
    tmp_path: Path,
) -> None:
    largest = run(tmp_path, "growth=schedule").run.params
    run(tmp_path, "growth=schedule", f"stop.max_params={largest}")
    with pytest.raises(ConfigError, match=r"stop\.max_params"):
        run(tmp_path, "growth=schedule", f"stop.max_params={largest - 1}")


# Budgets of growth.


@pytest.mark.parametrize("limit", [150, 1000])
def test_parameters_stay_within_the_budget_and_use_it_up(limit: int, tmp_path: Path) -> None:
    often = (*BUDGET, "growth.trigger.interval=2steps")
    ended = run(tmp_path, *often, f"growth.max_params={limit}")
    more = run(tmp_path, *often)
    assert max(row["params"] for row in ended.spy.rows) <= limit < more.run.params
    last = ended.run
    assert last.grown_out is StopReason.BUDGET
    host = Host(last.model, last.probe)
    smallest = min(
        sum(p.numel() for p in grow(host, operator, 0).model.parameters())
        for operator in (WidenRandom(), DeepenRandom())
    )
    assert smallest > limit, "another growth would have fitted"


SLOW = [
    pytest.param(each, marks=pytest.mark.slow)
    for each in ("24steps", "3epochs", "12seconds", "99samples", "5e5flops")
]


@pytest.mark.parametrize("duration", ["170samples", *SLOW])
def test_flops_stay_within_the_budget_whatever_the_run_is_measured_in(
    duration: str, tmp_path: Path
) -> None:
    length = f"train.duration={duration}"
    with steps_of(0.5):
        small = run(tmp_path, "growth=none", "+growth.start={width: 4, depth: 1}", length).run
        large = run(tmp_path, *BUDGET, length).run
    grew = 0
    for share in (0.05, 0.3, 0.9):
        least, most = small.clock.now.flops, large.clock.now.flops
        limit = least + share * (most - least)
        with steps_of(0.5):
            ended = run(tmp_path, *BUDGET, f"growth.max_flops={limit}", length).run
        assert ended.clock.now.flops <= limit
        grew += bool(ended.events)
    assert grew or duration.endswith("flops"), "no budget allows a growth"


def test_seconds_stay_within_the_budget(tmp_path: Path) -> None:
    with steps_of(0.5):
        for limit in (12.5, 15.0, 20.0, 50.0):
            ended = run(tmp_path, *BUDGET, f"growth.max_seconds={limit}").run
            assert ended.clock.now.seconds <= limit
        assert ended.events
        assert not run(tmp_path, *BUDGET, "growth.max_seconds=12.5").run.events


@pytest.mark.parametrize(
    "more", [("growth.max_seconds=50",), ("growth.max_flops=1e15", "train.duration=12seconds")]
)
def test_a_plan_sees_one_stage_ahead_where_no_step_has_been_timed(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    with steps_of(0.5):
        ended = run(tmp_path, *BUDGET, "growth.max_params=null", "growth.max_stages=2", *more)
    assert [row.name for row in ended.spy.plan] == ["start", "wider"]
    assert [event.stage for event in ended.run.events] == ["wider", "wider"]


@pytest.mark.parametrize("policy", [BUDGET, PLATEAU])
@pytest.mark.parametrize("most", [1, 2])
def test_no_more_stages_grow_than_allowed(
    policy: tuple[str, ...], most: int, tmp_path: Path
) -> None:
    assert len(run(tmp_path, *policy).run.events) >= most
    ended = run(tmp_path, *policy, f"growth.max_stages={most}")
    assert len(ended.run.events) == most


def test_the_budget_takes_the_largest_option_that_fits_and_says_what_is_left(
    tmp_path: Path,
) -> None:
    free = run(tmp_path / "free", *BUDGET, "growth.max_stages=1").run
    assert free.events[0].stage == "wider"
    tight = run(tmp_path / "tight", *BUDGET, f"growth.max_params={free.params - 1}")
    assert tight.run.events[0].stage == "deeper"
    for event, cause in zip(tight.run.events, tight.spy.causes, strict=True):
        left = free.params - 1 - event.params_after
        assert cause.startswith("the largest option that fits")
        assert f"{left:,} of {free.params - 1:,} parameters left" in cause


def test_the_budget_takes_the_steepest_option_when_asked(tmp_path: Path) -> None:
    made = parts(*BUDGET, "growth/choice=steepest", "growth.max_stages=1")
    gains: list[tuple[float, str]] = []

    def measure() -> None:
        assert spy.run is not None
        host = Host(spy.run.model, spy.run.probe)
        options = {"wider": WidenRandom(), "deeper": DeepenRandom()}
        gains.extend((expected_gain(grow(host, o, 0)), name) for name, o in options.items())

    spy = at_step(4, measure)
    ended = train(made, tmp_path, spy, store=False)
    assert ended.run.events[0].stage == max(gains)[1]
    assert ended.spy.causes[0].startswith("the steepest option that fits")


# Why a run, or its growth, ended.

REASONS: dict[StopReason, tuple[str, ...]] = {
    StopReason.DURATION: ("growth=none",),
    StopReason.TARGET: ("growth=none", "stop.target=0.01"),
    StopReason.FLOPS: ("growth=none", "stop.max_flops=1e5"),
    StopReason.SECONDS: ("growth=none", "stop.max_seconds=1e-9"),
    StopReason.NO_IMPROVEMENT: (*PLATEAU, *STILL, "stop.patience=1"),
    StopReason.STAGES_DONE: ("growth=schedule",),
    StopReason.MAX_STAGES: (*PLATEAU, "growth.max_stages=1"),
    StopReason.BUDGET: (*BUDGET, "growth.max_params=400"),
    StopReason.EARLY_STOPPING: (
        *STILL,
        "train.evaluate_every=1steps",
        "stop.early_stopping=3steps",
    ),
    StopReason.MONITOR: (
        "growth=schedule",
        "warmup=linear_ramp",
        "warmup.length=1steps",
        "monitor=instability",
        "monitor.instability.window=3",
        "monitor.instability.every=1",
        "monitor.instability.gradient=1.0001",
        "monitor.instability.loss=1.0001",
        "monitor.instability.remedy=stop",
    ),
    StopReason.NOTHING_TO_GROW: ("growth=none",),
}

# The same of the other policies: why growth, or the run, ends.
POLICIES: dict[str, tuple[StopReason, tuple[str, ...]]] = {
    "sequential": (StopReason.STAGES_DONE, ("growth=sequential",)),
    "sequential, fruitless": (
        StopReason.NO_IMPROVEMENT,
        ("growth=sequential", *PLATEAU[3:], *STILL, "stop.patience=1"),
    ),
    "overlapping": (StopReason.STAGES_DONE, ("growth=overlapping", "warmup=cosine_ramp")),
    "overlapping, target": (StopReason.TARGET, ("growth=overlapping", "stop.target=0.01")),
    "proactive": (
        StopReason.MAX_STAGES,
        ("growth=proactive", "growth.max_stages=1", "growth.trigger.window=3", *PLATEAU[4:]),
    ),
    "trial": (
        StopReason.BUDGET,
        (*BUDGET, "growth/choice=trial", "growth.choice.steps=2", "growth.max_params=180"),
    ),
    "trial, limit": (
        StopReason.FLOPS,
        (*BUDGET, "growth/choice=trial", "growth.choice.steps=9", "stop.max_flops=5e5"),
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_ends_for_the_reason_that_it_should(name: str, tmp_path: Path) -> None:
    reason, overrides = POLICIES[name]
    ended = run(tmp_path, *overrides).run
    assert reason in (ended.stopped, ended.grown_out)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_reached_by_a_config(reason: StopReason, tmp_path: Path) -> None:
    ended = run(tmp_path, *REASONS[reason]).run
    assert reason in (ended.stopped, ended.grown_out)


def test_no_reason_is_missing() -> None:
    elsewhere = {StopReason.INTERRUPTED, StopReason.DEBUGGED}  # test_resume, test_debug
    assert set(StopReason) == {*REASONS, *elsewhere}


@pytest.mark.parametrize("reason", StopReason)
def test_every_reason_names_a_setting_that_exists(reason: StopReason) -> None:
    names = re.findall(r"\b[a-z]+\.[a-z_]+|\b[a-z]+(?==)", reason.value)
    assert names
    for name in names:
        composed = config(*REASONS.get(reason, ()))
        assert OmegaConf.is_missing(composed, name) or name in _names(composed)


def _names(composed: object) -> set[str]:
    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    inner = {f"{k}.{n}" for k, v in plain.items() if isinstance(v, dict) for n in v}
    return {*map(str, plain), *inner}
