"""Runs of two processes whose network DeepSpeed holds in shards: the run of one, to rounding."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import ref

import pytest
import ranks_kit
import torch
from growth_kit import make
from ranks_kit import values
from test_ranks import (
    AGAIN,
    BUDGET,
    GROWN,
    RAMP,
    SMALL_GPT,
    STAGE_HEAD,
    STEADY,
    TWICE,
    alike,
    close,
    disturbed,
    trained,
    withholding,
)
from torch import Tensor, nn

from progtrain import cli
from progtrain.errors import ConfigError, SettingError
from progtrain.hardware import deepspeed
from progtrain.hardware.deepspeed import DeepSpeed
from progtrain.hardware.shards import learners, whole
from progtrain.hardware.zero import ZeroShards, loaded
from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.entries import by_entries
from progtrain.optimizers.sliced_adamw import SlicedAdamW
from progtrain.optimizers.torch_optimizer import TorchOptimizer, names

ROOT = Path(__file__).parent.parent
with_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not there: pip install -e '.[deepspeed]'"
)
BOUND = 1e-6  # of the loss; measured 2.0e-7


def by_deepspeed(function: Callable[..., Any], *args: Any) -> Any:
    """What a function of test_ranks comes to where its shards are DeepSpeed's."""
    try:
        with mock.patch.object(ranks_kit, "TorchShards", ZeroShards):
            return function(*args)
    finally:  # the next run of this process has another group
        found = loaded("cpu")
        found.utils.groups._release_process_group_references(group=None)
        found.comm.comm.cdb = None


def compare(settings: tuple[str, ...], tmp_path: Path) -> dict[str, Any]:
    """Two processes must make the run of one; what they came to."""
    one = trained(settings, tmp_path / "one")
    two = values(2, by_deepspeed, trained, settings, tmp_path / "two", False, True)
    alike(two)
    close(two[0], one)
    pairs = zip(one["losses"], two[0]["losses"], strict=True)
    apart = max(abs(a - b) / abs(a) for a, b in pairs)
    print(f"largest difference: {apart:.1e} of the loss")
    assert apart < BOUND
    assert one["undone"] == two[0]["undone"]
    return two[0]


BEGUN = "+optimizer.arguments.initial_accumulator_value=0.1"
LONG = ("growth=schedule", *TWICE, "train.duration=40steps", "train.clip=0.5")


@with_deepspeed
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(
            (*LONG, *SMALL_GPT, "optimizer=adamw", "train.batch_size=8", "model.tied=true"),
            id="adamw, tied weights",
        ),
        pytest.param((*LONG, *STEADY, *RAMP), id="sgd, ramp, accumulation, average"),
        pytest.param(
            (*LONG, *STEADY, *SMALL_GPT, *AGAIN), id="computed again", marks=pytest.mark.slow
        ),
        pytest.param(
            (*LONG, *STEADY, "warmup=frozen_host", "warmup.isolation=3steps", "train.ema=0.9"),
            id="frozen host",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*GROWN, "warmup.isolated=true", "model.norm=none"),
            id="isolated",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*LONG, *STEADY, "transfer=distill", "warmup=zero_init"),
            id="teacher",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*GROWN, *SMALL_GPT, "optimizer=torch", "optimizer.name=Adagrad", BEGUN),
            id="state from the start",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*GROWN, "+optimizer.groups.head={match: head.*, lr: 0.1}", "train.freeze=[stem.*]"),
            id="groups, frozen",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (*LONG, *STEADY, "model=resnet", "model.width=4", "data.shape=[1,8,8]"),
            id="images",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_make_the_run_of_one(chosen: tuple[str, ...], tmp_path: Path) -> None:
    assert compare(chosen, tmp_path)["grown"] == ["deeper", "wider"]


@with_deepspeed
@pytest.mark.parametrize(
    ("chosen", "grown"),
    [
        pytest.param(
            ("growth=schedule", *TWICE, "growth.keep_if='val/accuracy > 2'", *RAMP),
            3,
            id="a growth that does not pay",
        ),
        pytest.param((*BUDGET, "growth/choice=steepest"), 2, id="slope", marks=pytest.mark.slow),
        pytest.param(
            (*BUDGET, "growth/choice=trial", "growth.choice.steps=2"),
            2,
            id="trial",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (
                *("growth=schedule", *TWICE, "head=stage", "train.heads=all"),
                f"+growth.stages.classes={STAGE_HEAD}",
            ),
            3,
            id="all heads learn",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_look_and_undo_as_one(
    chosen: tuple[str, ...], grown: int, tmp_path: Path
) -> None:
    found = compare((*STEADY, "train.duration=20steps", *chosen), tmp_path)
    assert len(found["grown"]) == grown
    if "growth.keep_if='val/accuracy > 2'" in chosen:
        assert any(found["undone"])


@with_deepspeed
@pytest.mark.slow
def test_a_run_that_is_not_finite_goes_back_as_one(tmp_path: Path) -> None:
    policy = ("nonfinite.policy=rollback", "nonfinite.back=4steps")
    settings = ("growth=schedule", *STEADY, *TWICE, *RAMP, "train.duration=20steps", *policy)
    one = disturbed(settings, tmp_path / "one")
    two = values(2, by_deepspeed, disturbed, settings, tmp_path / "two", True)
    alike(two)
    close(two[0], one)
    assert len(one["grown"]) == 3


@with_deepspeed
def test_a_step_that_is_not_finite_in_one_part_is_withheld_by_all(tmp_path: Path) -> None:
    settings = (*GROWN, "nonfinite.policy=skip")
    found = values(2, by_deepspeed, withholding, settings, tmp_path / "two", False, True)
    alike(found)
    assert [each["memory"]["nonfinite/skipped"] for each in found] == [3, 3]


@with_deepspeed
def test_a_run_goes_on_with_one_process_replicas_and_parts(tmp_path: Path) -> None:
    """Two by DeepSpeed, one, two with the whole, two by DeepSpeed: as an unbroken run of one."""
    stops = [(*GROWN, "scheduler=constant", f"train.duration={n}steps") for n in (16, 18, 20, 22)]
    whole, place = trained(stops[-1], tmp_path / "whole"), tmp_path / "moving"
    first = values(2, by_deepspeed, trained, stops[0], place, False, True)[0]
    second = trained(stops[1], place, True)
    third = values(2, trained, stops[2], place, True)[0]
    fourth = values(2, by_deepspeed, trained, stops[3], place, True, True)[0]
    losses = [loss for each in (first, second, third, fourth) for loss in each["losses"]]
    assert losses == pytest.approx(whole["losses"], rel=BOUND)
    assert fourth["grown"] == whole["grown"] == ["deeper", "wider"]


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(5, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def learned(steps: int) -> dict[str, Any]:
    """A network in parts that takes steps of which a part of it knows nothing, and is let go."""
    engine = ranks_kit.Ranks(True).open()
    torch.manual_seed(0)
    network = Half()
    assert engine.shards is not None
    engine.shards.spread(network)
    parts, called = learners(network), engine.shards.called(network)
    x = torch.randn(4, 5)
    found: dict[str, Any] = {}
    for _ in range(steps):
        called(x).square().mean().backward()
        engine.reduced(network)
        found["reached"] = [name for name, part in parts.items() if part.grad is not None]
        gradient = parts["used.weight"].grad
        assert gradient is not None
        found["gradient"] = whole(gradient).reshape(3, 5).tolist()
        torch.optim.SGD([p for p in parts.values() if p.grad is not None], 0.1).step()
        engine.stepped(network)
    with torch.no_grad():
        found["out"] = called(x).tolist()
    found["held"] = sum(part.to_local().numel() for part in parts.values())
    watched = ref(network)
    del network, called, parts, gradient
    engine.shards.forget()
    gc.collect()
    return found | {"alive": watched() is not None}


@with_deepspeed
def test_what_no_gradient_reaches_has_none_and_what_has_gone_is_let_go() -> None:
    """DeepSpeed itself would leave the gradient of an earlier step, and keep every network."""
    torch.manual_seed(0)
    layer = Half().used
    x = torch.randn(4, 5)
    for _ in range(2):
        layer.zero_grad()
        layer(x).square().mean().backward()
        torch.optim.SGD(layer.parameters(), 0.1).step()
    told = values(2, by_deepspeed, learned, 2)
    for each in told:
        assert each["reached"] == ["used.weight", "used.bias"]
        assert layer.weight.grad is not None
        torch.testing.assert_close(torch.tensor(each["gradient"]), layer.weight.grad)
        torch.testing.assert_close(torch.tensor(each["out"]), layer(x).detach())
        assert not each["alive"]
    assert sum(each["held"] for each in told) == 5 * 3 + 3 + 2 * 2 + 2


@pytest.mark.parametrize("name", ["adamw", "sgd", *(f"torch/{name}" for name in names())])
def test_most_optimizers_step_every_entry_by_itself(name: str) -> None:
    kind, _, inner = name.partition("/")
    assert by_entries(TorchOptimizer(inner) if inner else make("optimizer", kind))


def test_muon_and_what_steps_rows_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not by_entries(make("optimizer", "muon"))

    def rows(self: SlicedAdamW, *_: Any) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data -= parameter.grad / parameter.grad.norm(dim=-1, keepdim=True)

    monkeypatch.setattr(torch.optim.AdamW, "step", rows)
    assert not by_entries(AdamW())


CHOSEN = ("hardware=deepspeed", "hardware.device=cpu", "hardware.devices=2", "data=synthetic")


def refused(directory: Path, *words: str) -> int:
    """The exit code of a command that must leave nothing."""
    code = cli.run([*CHOSEN, *words, f"hydra.run.dir={directory}"])
    assert not directory.exists()
    return code


def test_without_deepspeed_nothing_is_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deepspeed, "find_spec", lambda _: None)
    assert refused(tmp_path / "run") == 5
    told = " ".join(capsys.readouterr().err.split())
    assert "needs the package deepspeed: pip install 'progtrain[deepspeed]'" in told
    assert "hardware=fsdp" in told


def test_muon_is_refused_before_anything_is_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deepspeed, "find_spec", lambda _: object())
    assert refused(tmp_path / "run", "optimizer=muon") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "hardware=deepspeed cannot step by Muon" in told
    assert "Use hardware=fsdp" in told


def test_half_precision_and_other_homes_are_refused() -> None:
    with pytest.raises(SettingError, match="fp32, tf32 or bf16"):
        DeepSpeed(precision="fp16")
    with pytest.raises(SettingError, match="cpu or device"):
        DeepSpeed(grow_on="gpu")
    with pytest.raises(ConfigError, match="needs 2 processes or more"):
        DeepSpeed(device="cpu", devices=1)._all().count("fp32", fewest=2)  # pyright: ignore[reportPrivateUsage]


def command(directory: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """What a command prints, and its result."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    tiny = ("data.samples=64", "data.shape=[1,4,4]", "model=mlp", "model.width=8", *TWICE)
    rest = ("train.batch_size=16", "train.duration=16steps", "report.page=false", "data=synthetic")
    words = (*words, "growth=schedule", *tiny, *rest, f"hydra.run.dir={directory}")
    done = subprocess.run(
        [sys.executable, "-m", "progtrain", *words],
        env=environment, text=True, capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, json.loads((directory / "result.json").read_text())


@with_deepspeed
@pytest.mark.slow
def test_a_command_starts_processes_that_say_nothing_of_their_own(tmp_path: Path) -> None:
    """In bf16 as autocast makes it: the same run as of replicas."""
    words = ("hardware.precision=bf16", "hardware.device=cpu", "hardware.devices=2")
    told, result = command(tmp_path / "parts", "hardware=deepspeed", *words)
    assert "deepspeed" not in told.replace("hardware=deepspeed", "").lower()
    assert "2 processes" in told
    _, replicas = command(tmp_path / "whole", "hardware=ddp", *words)
    assert result["metrics"]["val/loss"] == pytest.approx(replicas["metrics"]["val/loss"], rel=1e-6)
