"""The scripts behind docs/figures.md run, on tiny settings, and their claims can fail."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from growth_kit import one_thread  # noqa: F401

FOLDER = Path(__file__).parent.parent / "benchmarks"
GROMO = importlib.util.find_spec("gromo") is not None


@pytest.fixture(autouse=True)
def beside_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(name).main()


def rows(text: str) -> list[list[str]]:
    """Cells of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_exactness_covers_every_option_that_preserves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "exactness", "--models", "mlp")
    seen = {row[0].strip("`") for row in rows(capsys.readouterr().out)}
    assert {"widen=zero", "widen=duplicate", "widen=gradmax", "widen=paired"} <= seen
    assert {"deepen=identity", "head=outputs", "head=second"} <= seen
    assert "widen=random" not in seen


def test_exactness_fails_where_an_operator_moves_the_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from progtrain.growth.operators.widen_random import WidenRandom

    exactness = importlib.import_module("exactness")
    monkeypatch.setattr(exactness, "operators", lambda: {"widen=random": WidenRandom()})
    with pytest.raises(SystemExit, match="more than 1e-12"):
        run(monkeypatch, "exactness", "--models", "mlp")


def test_growth_cost_measures_a_growth_of_a_network_of_torchvision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cost = importlib.import_module("growth_cost")
    tiny = cost.Settings(batch=2, image=32, probe=2, rounds=1, threads=1)
    monkeypatch.setattr(cost, "HIDDEN", {"resnet18": "layer*.conv1"})
    trained = cost.start("resnet18", cost.RECIPES["AdamW"], tiny)
    seconds = cost.seconds("resnet18", trained, tiny)
    assert 0 < seconds.spaces < seconds.grow and seconds.carry > 0 and seconds.step > 0
    assert len(seconds.cells()) == cost.HEADS["seconds"].count("|") - 3


def test_a_growth_holds_hardly_more_than_the_old_and_the_new_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cost = importlib.import_module("growth_cost")
    tiny = cost.Settings(batch=2, image=32, probe=2, rounds=1, threads=1)
    monkeypatch.setattr(cost, "HIDDEN", {"resnet18": "layer*.conv1"})
    trained = cost.start("resnet18", cost.RECIPES["AdamW"], tiny)
    used = cost.memory("resnet18", trained, tiny)
    four = 4 * 4 * used.before  # weights, gradients, two moments in float32; and buffers
    assert four < used.old < 1.01 * four
    assert used.after > used.before and used.new > 3 * 4 * used.after
    # optimizer state of tensors that have not grown is shared by both
    assert used.old + 4 * used.after < used.peak < 1.1 * (used.old + used.new)


def test_overhead_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "overhead", "--rounds", "1", "--steps", "2")
    out = capsys.readouterr().out
    assert out.count("progtrain") == 2 and out.count("deeper") == 2 and out.count("wider") == 2


@pytest.mark.skipif(GROMO, reason="gromo is there")
def test_without_gromo_the_comparison_says_where_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="gromo is missing: see"):
        run(monkeypatch, "gromo_digits")


def _arms(ours: bool) -> list[str]:
    sys.path.insert(0, str(FOLDER))
    arms = importlib.import_module("gromo_arms")
    sys.path.remove(str(FOLDER))
    return [*arms.OURS] if ours else [*arms.GROMO]


def _trained(name: str) -> tuple[Any, Any]:
    digits = importlib.import_module("gromo_digits")
    plan, images = digits.Plan(steps=10, lr=1e-3), digits.Images.load()
    return digits, digits.train(name, plan, 0, images)


@pytest.mark.parametrize("name", _arms(ours=True))
def test_our_arms_end_at_the_end_size(name: str) -> None:
    digits, result = _trained(name)
    assert 0 < result.accuracy < 1 and 0 < result.growing < result.seconds
    learner = digits.begin(name, digits.Plan(10, 1e-3), 0)
    probe = digits.Probe(torch.randn(8, 64), torch.arange(8))
    for width in digits.MOMENTS.values():
        learner.grow(width, probe)
    _ends_at_the_end_size(learner)


@pytest.mark.skipif(not GROMO, reason="gromo is missing")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _arms(ours=False))
def test_arms_of_gromo_start_and_end_as_ours_do(name: str) -> None:
    digits, result = _trained(name)
    assert 0 < result.accuracy < 1
    plan, probe = digits.Plan(10, 1e-3), digits.Probe(torch.randn(64, 64), torch.arange(64) % 10)
    learner, ours = (digits.begin(n, plan, 0) for n in (name, "widen=zero"))
    torch.testing.assert_close(learner.model(probe.x), ours.model(probe.x))
    for width in digits.MOMENTS.values():
        learner.grow(width, probe)
    _ends_at_the_end_size(learner)


def _ends_at_the_end_size(learner: Any) -> None:
    shapes = [tuple(p.shape) for p in learner.model.parameters()]
    assert shapes == [(64, 64), (64,), (64, 64), (64,), (10, 64), (10,)]
    assert len(learner.optimizer.parameters) == 6


def test_flops_of_an_arm_are_those_of_its_steps_and_of_its_growths() -> None:
    digits = importlib.import_module("gromo_digits")
    plan, images = digits.Plan(steps=10, lr=1e-3), digits.Images.load()
    scratch, grown = (digits.flops(n, plan, images) for n in (digits.SCRATCH[0], "widen=gradmax"))
    macs = [64 * w + w * w + w * 10 for w in (64,)]
    first = 64 * 64  # no gradient of the input is computed
    assert scratch == (10 * 64 * 2 * (3 * macs[0] - first), 0.0)
    assert grown[0] < scratch[0] and grown[1] > 0


def test_a_step_of_a_grown_network_launches_hardly_more_than_a_loop_by_hand(
    one_thread: None,  # noqa: F811
) -> None:
    found = importlib.import_module("launches").row("cnn", "train.ema=0.9")
    assert found["by hand"] > 50  # forward, backward, optimizer
    assert found["from scratch"] <= 1.6 * found["by hand"]
    assert found["grown"] <= 2 * found["by hand"]  # once it was 9 times as many
    assert found["grown long ago"] < found["grown"] < found["ramp"] <= 2.4 * found["by hand"]
