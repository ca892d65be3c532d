"""`task=plan` foresees what a run does: sizes, FLOPs, times, memory, disk; and disturbs nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from growth_kit import one_thread  # noqa: F401
from rich.console import Console
from run_kit import CONF, Finished, parts, train
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from progtrain import job, stepper
from progtrain.build import Parts
from progtrain.errors import ConfigError, EnvironmentProblem
from progtrain.growth.plan_checks import warnings
from progtrain.hardware.engine import Engine
from progtrain.planning import disk, rehearse
from progtrain.planning.memory import held, measured
from progtrain.planning.rows import Rehearsal
from progtrain.planning.task import foresee
from progtrain.report.plan import print_plan
from progtrain.run import Run
from progtrain.start import batches_of, new_run, new_setup
from progtrain.state import random_numbers

GROWING = ("growth=schedule", "train.duration=12steps")
SIX = {
    "mlp": ("model=mlp",),
    "cnn": ("model=cnn", "model.width=4"),
    "resnet": ("model=resnet", "model.width=4", "model.stages=2"),
    "vit": ("model=vit", "model.heads=2"),
    "gpt": ("model=gpt", "model.heads=2", "data=text", "data.length=8", "data.bytes=2000"),
    "mobilenet": ("model=torchvision", "model.name=mobilenet_v3_small", "data.shape=[3,32,32]"),
}
# The sum over the steps of a run, told in the run's own words.
POLICIES = {
    "schedule": ("growth=schedule",),
    "budget": ("growth=budget", "growth.max_params=2000", "growth.trigger.interval=3steps"),
    "sequential": (
        "growth=sequential",
        "growth.stages.deeper.when='step >= 3'",
        "growth.stages.wider.when='epoch >= 1'",
    ),
    "overlapping": (
        "growth=overlapping",
        "growth.stages.deeper.when='step >= 3'",
        "growth.stages.wider.when='step >= 3'",
        "warmup=linear_ramp",
        "warmup.length=3steps",
    ),
    "ramped": ("growth=schedule", "warmup=linear_ramp", "warmup.length=2steps"),
    "teachers": ("growth=schedule", "transfer=distill", "train.ema=0.9", "train.accumulate=2"),
    "larger batches": ("growth=schedule", "curriculum=batch_size", "curriculum.maximum=16"),
    "flops": ("growth=schedule", "train.duration=60000flops"),
}


def opened(made: Parts) -> tuple[Engine, Any, Run]:
    engine = made.hardware.open()
    batches = batches_of(made, engine)
    return engine, batches, new_run(made, engine, batches)


def plan_of(directory: Path, *overrides: str) -> Rehearsal:
    made = parts(*overrides)
    engine, batches, run = opened(made)
    return foresee(made, engine, batches, run, directory)


def counted_run(directory: Path, *overrides: str) -> tuple[Finished, dict[str, float]]:
    """A run, and what torch counts in the second step of each of its stages."""
    step, counted = stepper.train_step, dict[str, float]()
    taken = dict[str, int]()

    def counting(run: Run, *rest: Any) -> Any:
        name = run.events[-1].stage if run.events else "start"
        taken[name] = taken.get(name, 0) + 1
        if taken[name] != 2:
            return step(run, *rest)
        # torch's counter knows nothing of the fused attention of CPUs
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss = step(run, *rest)
        counted[name] = counter.get_total_flops()
        return loss

    with mock.patch.object(stepper, "train_step", counting):
        return train(parts(*overrides), directory, store=False), counted


@pytest.mark.parametrize("model", SIX)
def test_parameters_and_flops_are_those_of_the_real_steps(model: str, tmp_path: Path) -> None:
    foreseen = plan_of(tmp_path, *GROWING, *SIX[model])
    finished, counted = counted_run(tmp_path / "run", *GROWING, *SIX[model])
    grown = finished.run.events
    assert [row.name for row in foreseen.rows] == ["start", *(event.stage for event in grown)]
    assert [row.params for row in foreseen.rows] == [
        grown[0].params_before,
        *(event.params_after for event in grown),
    ]
    for row in foreseen.rows:
        assert row.flops_per_step == pytest.approx(counted[row.name], rel=0.05)


@pytest.mark.parametrize("policy", POLICIES)
def test_growths_come_when_the_plan_says_and_the_run_costs_what_it_says(
    policy: str, tmp_path: Path
) -> None:
    settings = ("train.duration=14steps", *POLICIES[policy])
    foreseen = plan_of(tmp_path, *settings)
    run = train(parts(*settings), tmp_path / "run", store=False).run
    begins = [row.begins.step for row in foreseen.rows if row.begins]
    assert begins == [event.moment.step for event in run.events] and len(begins) >= 2
    assert foreseen.totals.steps == run.clock.step
    assert foreseen.totals.flops is not None
    assert foreseen.totals.flops.least == foreseen.totals.flops.most
    assert foreseen.totals.flops.least == pytest.approx(run.clock.now.flops, rel=1e-6)
    known = sum(row.flops for row in foreseen.rows if row.flops is not None)
    assert known == pytest.approx(run.clock.now.flops, rel=1e-6)


def test_a_long_run_is_walked_through_in_pieces_and_still_exact(tmp_path: Path) -> None:
    settings = (
        "growth=schedule",
        "train.duration=1000000steps",
        "growth.stages.deeper.at=123457steps",
        "growth.stages.wider.at=60%",
        "warmup=linear_ramp",
        "warmup.length=1001steps",
        "plan.rehearse=false",
    )
    rows = plan_of(tmp_path, *settings).rows
    assert [row.begins.step for row in rows if row.begins] == [123457, 600000]


UNKNOWN = {
    "plateau": (("growth=plateau",), "when val/accuracy has not improved for 2 observations"),
    "proactive": (("growth=proactive",), "when growth.trigger says so (Proactive: metric val/loss"),
    "sequential": (
        (
            "growth=sequential",
            "growth.stages.deeper.when='val/accuracy > 0.7'",
            "growth.stages.wider.when='val/accuracy > 0.8'",
        ),
        "when val/accuracy > 0.7",
    ),
    "combined": (
        ("growth=combined", "curriculum=difficulty", "curriculum/score=function"),
        "when val/accuracy has not improved for 2 observations",
    ),
}


@pytest.mark.parametrize("policy", UNKNOWN)
def test_where_nobody_knows_the_plan_says_when_and_gives_a_span(
    policy: str, tmp_path: Path
) -> None:
    settings, words = UNKNOWN[policy]
    foreseen = plan_of(tmp_path, *settings, "train.duration=14steps")
    assert [row.begins for row in foreseen.rows] == [None] * 3
    assert foreseen.rows[1].when.startswith(words)
    first, *_, last = foreseen.rows
    assert foreseen.totals.flops is not None
    assert foreseen.totals.flops.least == pytest.approx(14 * first.flops_per_step)
    assert foreseen.totals.flops.most == pytest.approx(14 * last.flops_per_step)


def test_a_condition_that_holds_by_its_clock_at_last_is_known(tmp_path: Path) -> None:
    when = "growth.stages.deeper.when='val/accuracy > 2 or step >= 5'"
    settings = ("growth=sequential", when, "growth.stages.wider=null", "train.duration=14steps")
    row = plan_of(tmp_path, *settings).rows[1]
    assert row.when == "step 5 (epoch 0.8) at the latest"


# It disturbs nothing.


def test_a_run_after_its_plan_has_the_same_bits(tmp_path: Path) -> None:
    settings = (*GROWING, "model=vit", "model.heads=2", "model.dropout=0.1", "train.ema=0.9")
    settings = (*settings, "growth.keep_if='gain > -10'", "warmup=linear_ramp")
    settings = (*settings, "warmup.length=2steps")
    alone = train(parts(*settings), tmp_path / "alone", store=False)
    built = job.new_setup

    def after_a_plan(made: Parts, engine: Engine, batches: Any, *rest: Any) -> Any:
        if rest:  # the setup of the run itself
            run = kept[0]
            numbers = random_numbers(engine)
            foresee(made, engine, batches, run, tmp_path)
            after = random_numbers(engine)
            assert all(torch.equal(numbers[name], after[name]) for name in numbers)
        return built(made, engine, batches, *rest)

    kept: list[Run] = []
    start = job.new_run

    def noted(*given: Any) -> Run:
        kept.append(start(*given))
        return kept[0]

    with (
        mock.patch.object(job, "new_setup", after_a_plan),
        mock.patch.object(job, "new_run", noted),
    ):
        planned = train(parts(*settings), tmp_path / "planned", store=False)
    assert kept and planned.spy.digest == alone.spy.digest


def test_nothing_stays_in_the_directory_but_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = replace(parts(*GROWING), task="plan")
    job.train_job(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", ".lock"}
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert [stage["name"] for stage in stored["stages"]] == ["start", "deeper", "wider"]
    for stage in stored["stages"]:
        assert stage["step_seconds"] > 0 and stage["peak_memory"] > stage["held"]["weights"]
    assert stored["rehearsed"] and stored["totals"]["seconds"]["least"] > 0
    captured = capsys.readouterr()
    assert "Peak memory" in captured.out and "\x1b" not in captured.out and not captured.err


def test_every_stage_takes_as_many_steps_as_asked(tmp_path: Path) -> None:
    for steps in (1, 3):
        with mock.patch.object(rehearse, "train_step", wraps=rehearse.train_step) as taken:
            plan_of(tmp_path, *GROWING, f"plan.steps={steps}")
        assert taken.call_count == 3 * (steps + 2)


def test_without_a_rehearsal_nothing_is_computed_and_the_counts_are_the_same(
    tmp_path: Path,
) -> None:
    settings = (*GROWING, "model=cnn", "model.width=4")
    real = plan_of(tmp_path, *settings)
    with mock.patch.object(rehearse, "train_step", side_effect=AssertionError):
        counted = plan_of(tmp_path, *settings, "plan.rehearse=false")
    for one, other in zip(real.rows, counted.rows, strict=True):
        for name in ("name", "what", "params", "flops_per_step", "when", "steps"):
            assert getattr(one, name) == getattr(other, name), name
        assert one.held.weights == other.held.weights
        assert one.held.optimizer == pytest.approx(other.held.optimizer, rel=0.05)
        assert other.step_seconds is None and other.step_memory is not None
        assert other.held.between < other.step_memory <= (one.step_memory or 0)
    assert counted.totals.seconds is None
    assert counted.totals.flops == real.totals.flops


# Memory.


def test_the_peak_is_the_most_that_is_taken_at_once() -> None:
    megabyte, cpu = 2**20, torch.device("cpu")
    with measured(cpu) as peak:
        for _ in range(3):
            one = torch.zeros(megabyte // 4)
            two = torch.zeros(megabyte // 2)
            del one, two
    assert peak.bytes == 3 * megabyte


def test_what_a_run_holds_is_counted_once_and_as_it_is() -> None:
    made = parts("growth=none", "train.ema=0.9")
    engine, _, run = opened(made)
    weights = sum(t.nbytes for t in (*run.model.parameters(), *run.model.buffers()))
    found = held(run, engine.device)
    assert (found.weights, found.optimizer, found.kept) == (weights, 0, weights)
    assert found.gradients == sum(p.nbytes for p in run.model.parameters())


def test_state_that_is_kept_for_every_entry_of_grown_tensors_is_counted(tmp_path: Path) -> None:
    settings = (*GROWING, "growth.stages.deeper=null")
    start, wider = plan_of(tmp_path, *settings).rows
    assert start.held.optimizer < 2.1 * start.held.weights
    assert wider.held.optimizer > 3 * wider.held.gradients


def test_states_to_go_back_to_are_counted(tmp_path: Path) -> None:
    kept = plan_of(tmp_path, *GROWING, "nonfinite.policy=rollback").rows
    for row in kept:  # two of them: weights, and the optimizer's state once there is one
        assert 2 * row.held.weights <= row.held.kept
        assert (row.checkpoint or 0) > 3 * row.held.weights


def test_a_growth_that_may_be_undone_keeps_the_network_of_before(tmp_path: Path) -> None:
    kept = plan_of(tmp_path, *GROWING, "growth.keep_if='gain > 0'").rows
    free = plan_of(tmp_path, *GROWING).rows
    assert [row.held.kept for row in free] == [0, 0, 0]
    assert 0 == kept[0].held.kept < kept[1].held.kept < kept[2].held.kept
    assert (kept[2].checkpoint or 0) > (free[2].checkpoint or 0)


# What does not fit.


def a_machine_with(**told: Any) -> Any:
    return mock.patch.multiple(Engine, **{n: (lambda self, v=v: v) for n, v in told.items()})


def test_a_stage_that_does_not_fit_into_memory_is_refused_before_it_is_computed(
    tmp_path: Path,
) -> None:
    settings = (*GROWING, "model=cnn", "model.width=4", "train.batch_size=32")
    need = max(row.step_memory or 0 for row in plan_of(tmp_path, *settings).rows)
    with (
        a_machine_with(free_memory=need // 10),
        mock.patch("progtrain.growth.plan.no_room", lambda *_: None),
        pytest.raises(EnvironmentProblem, match=r"Stage '\w+' needs at least .* are free\. Try"),
    ):
        plan_of(tmp_path, *settings)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("not enough memory: 3")]
)
def test_memory_that_runs_out_is_told_with_the_stage(error: RuntimeError, tmp_path: Path) -> None:
    calls: list[Run] = []
    step = rehearse.train_step

    def failing(run: Run, *rest: Any) -> Any:
        calls.append(run)
        if run.events:
            raise error
        return step(run, *rest)

    with (
        mock.patch.object(rehearse, "train_step", failing),
        pytest.raises(EnvironmentProblem, match=r"Stage 'deeper' does not fit.*batch_size=4"),
    ):
        plan_of(tmp_path, *GROWING)


def test_a_disk_that_is_too_small_is_told(tmp_path: Path) -> None:
    largest = plan_of(tmp_path, *GROWING).totals
    assert largest.disk == 3 * largest.checkpoint
    more = plan_of(tmp_path, *GROWING, "checkpoint.keep=3", "checkpoint.best=2").totals
    assert (more.checkpoints, more.disk) == (5, 6 * more.checkpoint)
    for free, refused in ((largest.disk // 2, True), (2 * largest.disk, False)):
        with mock.patch.object(disk.shutil, "disk_usage", lambda _: mock.Mock(free=free)):  # noqa: B023
            if not refused:
                plan_of(tmp_path, *GROWING)
                continue
            with pytest.raises(EnvironmentProblem, match="2 that stay and one being written"):
                plan_of(tmp_path, *GROWING)


def test_a_checkpoint_is_as_large_as_the_plan_says(tmp_path: Path) -> None:
    foreseen = plan_of(tmp_path, *GROWING).totals.checkpoint
    train(parts(*GROWING), tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    stored = sum(path.stat().st_size for path in newest.iterdir() if "model" in path.name)
    assert stored < foreseen
    tensors = [p.stat().st_size for p in newest.iterdir() if p.suffix == ".safetensors"]
    assert foreseen == pytest.approx(sum(tensors), rel=0.6)  # the history is not known yet


# Bad plans.


def refused(settings: tuple[str, ...], directory: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(directory, *settings)
    return str(caught.value)


def test_13_14_18_limits_below_the_start_or_a_stage_are_refused(tmp_path: Path) -> None:
    assert "is less than one training step of the start model" in refused(
        (*GROWING, "stop.max_flops=10"), tmp_path
    )
    assert "The start model has 124 parameters; stop.max_params=100" in refused(
        ("growth=none", "+growth.start={width: 4, depth: 1}", "stop.max_params=100"), tmp_path
    )
    told = refused((*GROWING, "stop.max_params=130"), tmp_path)
    assert "Stage 'deeper' would need 152 parameters; stop.max_params=130 (start has 124)" in told
    assert "'wider'" not in told


def test_all_that_is_wrong_with_a_plan_comes_in_one_report(tmp_path: Path) -> None:
    settings = (*GROWING, "growth.stages.wider.at=20steps", "warmup=linear_ramp")
    told = refused((*settings, "warmup.length=30steps", "stop.max_params=130"), tmp_path)
    assert told.startswith("3 problems, nothing was started.")
    assert "Stage 'deeper' would need" in told
    assert "growth.stages.wider.at=20steps is not before the end of the run" in told
    assert "The life of growth 'deeper' (warmup 30steps) does not fit" in told


def test_15_a_budget_that_ends_before_the_first_growth_is_warned_of(tmp_path: Path) -> None:
    made = parts(*GROWING)
    engine, batches, run = opened(made)
    step = run.step_flops
    for limit, warned in ((2.5, True), (3.5, True), (4.5, False)):
        settings = (*GROWING, f"stop.max_flops={limit * step}")
        setup = new_setup(parts(*settings), engine, batches)
        told = list(warnings(run, setup))
        assert bool(told) is warned
        foreseen = plan_of(tmp_path, *settings)
        assert any("nothing will grow" in text for text in foreseen.warnings) is warned
        assert (len(foreseen.rows) > 1) is not warned
    finished = train(parts(*GROWING, f"stop.max_flops={2.5 * step}"), tmp_path / "run", store=False)
    assert not finished.run.events
    told = "is spent after 2 steps, and deeper would grow after 3"
    assert any(told in note for note in finished.spy.notes)


def test_a_stage_that_never_comes_is_told(tmp_path: Path) -> None:
    when = "growth.stages.deeper.when='step >= 50'"
    foreseen = plan_of(tmp_path, "growth=sequential", when, "train.duration=12steps")
    assert len(foreseen.rows) == 1
    assert "ends at step 12, before deeper grows (when step >= 50)" in foreseen.warnings[0]


# The screen.


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_is_readable_at_the_width_of_a_terminal(width: int, tmp_path: Path) -> None:
    made = parts("growth=plateau", "model=resnet", "model.width=4")
    engine, batches, run = opened(made)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    print_plan(run, foresee(made, engine, batches, run, tmp_path), console)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for word in ("Stages", "deeper", "wider", "Cost of each stage", "Peak memory", "Whole run"):
        assert any(word in line for line in lines), word
    whole = " ".join(line.split()[0] for line in lines if line.split())
    assert "deeper" in whole.split(), "names are not broken"


def test_a_plan_of_many_stages_shows_both_its_ends(tmp_path: Path) -> None:
    made = parts(*GROWING)
    engine, batches, run = opened(made)
    foreseen = foresee(made, engine, batches, run, tmp_path)
    rows = [replace(foreseen.rows[0], name=f"s{index}") for index in range(40)]
    out = io.StringIO()
    print_plan(run, replace(foreseen, rows=rows), Console(file=out, width=120))
    assert "16 more" in out.getvalue() and "s39" in out.getvalue() and "s20" not in out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "gpt", "resnet"])
def test_the_peak_of_a_step_is_that_of_the_resident_set(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    monkeypatch.syspath_prepend(str(CONF.parent / "benchmarks"))
    compared: Callable[[str, str], list[dict[str, Any]]] = importlib.import_module("plan").compared
    for row in compared(model, "cpu"):
        foreseen, seen = row["memory"]
        assert foreseen == pytest.approx(seen, rel=0.25), row
