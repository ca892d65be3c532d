"""What docs/coverage.md claims: networks grow wider and deeper exactly and train on."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import torchvision
from growth_kit import one_thread  # noqa: F401
from run_kit import some
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import coverage
from coverage_checks import check
from coverage_report import Outcome, Report
from coverage_training import trains
from coverage_values import noise, randomise

from progtrain.growth import gates
from progtrain.growth.grow import Grown, Host, grow
from progtrain.growth.operators import widen_zero
from progtrain.growth.operators.deepen_identity import DeepenIdentity
from progtrain.models.cnn import CNN
from progtrain.run import Probe

SMALL = ["squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5"]
FAMILIES = ["alexnet", "vgg11", "resnet18", "googlenet", "densenet121", "efficientnet_b0"]
FAMILIES += ["mobilenet_v2", "regnet_y_400mf", "convnext_tiny", "swin_t", "vit_b_16"]


def assert_grows(name: str) -> None:
    report = check("torchvision", name)
    assert report.ok, coverage.row(report)
    tried = (report.hidden, report.stream, report.depth)
    assert all(part.error is not None and part.error <= 1e-10 for part in tried if part.tried)


@pytest.mark.parametrize("name", some(SMALL, 3))
def test_a_small_network_grows_every_way_and_trains_on(name: str) -> None:
    assert_grows(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_every_family_grows_every_way_and_trains_on(name: str) -> None:
    assert_grows(name)


def test_depth_counts_and_so_does_training_after_it() -> None:
    good, bad, untried = Outcome(True), Outcome(False), Outcome(tried=False)
    parts = {"hidden": good, "stream": good, "trains": good}
    assert Report("a", **parts, depth=good, deep=good).ok
    assert Report("a", **parts, depth=untried, deep=untried).ok
    assert not Report("a", **parts, depth=bad, deep=untried).ok
    assert not Report("a", **parts, depth=good, deep=bad).ok
    assert "depth: **no**" in coverage.summary(
        "any", [Report("a", **parts, depth=bad, deep=untried)]
    )


def test_stacks_that_cannot_be_the_identity_grow_behind_a_ramp_and_not_without() -> None:
    report = check("torchvision", "shufflenet_v2_x0_5")
    assert report.depth.ok and report.depth.note == "ramp" and report.depth.error == 0
    assert not report.stream.ok and not report.ok
    with mock.patch.object(gates, "_blend", lambda block, alpha, isolates: []):
        assert not check("torchvision", "shufflenet_v2_x0_5").depth.ok


def deeper() -> Grown:
    torch.manual_seed(0)
    model = CNN((1, 4, 4), 3, 8, 1, stages=2).double()
    x = torch.randn(4, 1, 4, 4, dtype=torch.float64)
    return grow(Host(model, Probe(x, torch.arange(4) % 3)), DeepenIdentity(), 0)


def test_a_new_block_that_cannot_learn_is_seen() -> None:
    assert trains(deeper()).ok
    dead = deeper()
    block = dead.model.get_submodule(dead.edit.blocks()[0])
    convolution = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
    convolution.weight.requires_grad_(False)
    outcome = trains(dead)
    assert not outcome.ok and dead.edit.blocks()[0] in outcome.note


def test_several_models_are_checked_at_once_and_a_slow_one_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "squeezenet1_1,squeezenet1_0"
    given = ["coverage.py", "torchvision", "--models", names, "--jobs", "2", "--limit", "0.01"]
    monkeypatch.setattr(sys, "argv", given)
    threads = torch.get_num_threads()
    coverage.main()
    torch.set_num_threads(threads)
    lines = [line for line in capsys.readouterr().out.splitlines() if "takes longer" in line]
    told = {line.split()[1].rstrip(":") for line in lines}  # two at once end in either order
    assert told == set(names.split(","))


def a_mobilenet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.mobilenet_v3_small(num_classes=10).double()


def squares(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, dtype=torch.float64)


def test_small_branches_make_rounding_small_and_none_is_zero() -> None:
    model = a_mobilenet()
    randomise(model, squares)
    assert 0 < noise(model, squares(2)) < 1e-13
    assert all(p.any() for p in model.parameters())
    ends = dict(model.named_parameters())["features.5.block.3.1.weight"]
    assert 0.05 < float(ends.detach().abs().mean()) < 0.5


def test_a_growth_that_is_wrong_inside_a_small_branch_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(widen_zero, "zero_consumers", lambda model, slabs: None)
    report = check("torchvision", "mobilenet_v3_small")
    assert not report.hidden.ok and not report.stream.ok
    assert report.hidden.error is not None and report.hidden.error > 1e-4
