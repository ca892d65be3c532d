"""The moving average of the weights: what it is, and that it grows with them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from growth_kit import (  # noqa: F401
    a_host,
    a_machine,
    a_model,
    grow_now,
    lively,
    make,
    one_thread,
    options,
    train,
)
from run_kit import at_step, differences, parts, resume, some
from run_kit import train as train_job
from torch import Tensor

from progtrain.evaluation import evaluate as evaluate_run
from progtrain.growth.average import begin, follow, update
from progtrain.growth.grow import grow
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.rollback import Before
from progtrain.machine import Machine
from progtrain.setup import Setup

PRESERVING = [
    *[("widen", o) for o in ("zero", "paired", "gradmax", "duplicate")],
    ("deepen", "identity"),
    ("head", "second"),
]
ADAMW = make("optimizer", "adamw")


def test_an_average_forgets_its_first_weights_and_follows_by_its_decay() -> None:
    model = a_model("mlp_batch")
    average, wanted = begin(model), model.state_dict()["stem.weight"].clone()
    for step in range(200):
        torch.manual_seed(step)
        for tensor in model.parameters():
            tensor.detach().copy_(torch.randn_like(tensor))
        model.get_buffer("norm.num_batches_tracked").add_(1)
        update(average, model, 0.9, step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * model.state_dict()["stem.weight"]
    torch.testing.assert_close(average.state_dict()["stem.weight"], wanted)
    assert average.get_buffer("norm.num_batches_tracked") == 200
    assert not any(parameter.requires_grad for parameter in average.parameters())


@pytest.mark.parametrize("name", ["mlp_layer", "cnn", "resnet", "gpt", "tied"])
@pytest.mark.parametrize(("group", "option"), PRESERVING)
def test_an_average_computes_its_own_function_on_after_a_growth(
    name: str, group: str, option: str
) -> None:
    host = a_host(name)
    average = lively(copy.deepcopy(host.model), seed=9)
    for parameter in average.parameters():
        parameter.detach().mul_(1.1)
    before, own = evaluate(average, host.probe.x), evaluate(host.model, host.probe.x)
    operator: Any = make(group, option, iterations=2)
    try:
        grown = grow(host, operator, 3)
    except Exception as error:
        pytest.skip(str(error))
    after = evaluate(follow(average, grown, operator, 3), host.probe.x)
    assert float((before - own).abs().max()) > 1e-3, "the average is another network"
    assert float((after - before).abs().max()) <= 1e-12


@pytest.mark.parametrize(("group", "option"), [("widen", "random"), ("deepen", "random")])
def test_what_is_new_begins_at_the_values_of_the_network(group: str, option: str) -> None:
    host = a_host("resnet")
    average = lively(copy.deepcopy(host.model), seed=9)
    operator = make(group, option)
    grown = grow(host, operator, 3)
    followed = follow(average, grown, operator, 3)
    now, theirs = followed.state_dict(), grown.model.state_dict()
    for slab in grown.edit.slabs():
        assert torch.equal(slab.read(now[slab.tensor]), slab.read(theirs[slab.tensor]))
    for block in grown.edit.blocks():
        own = followed.get_submodule(block).state_dict()
        assert all(torch.equal(own[n], theirs[f"{block}.{n}"]) for n in own)
    kept = {
        n: grown.edit.carry(n, torch.ones_like(t)).bool() for n, t in average.named_parameters()
    }
    for name, tensor in average.named_parameters():
        assert torch.equal(now[grown.edit.rename(name)][kept[name]], tensor.flatten())


def averaged(name: str, warmup: str = "none") -> Machine:
    machine = a_machine(a_model(name), ADAMW, make("warmup", warmup), ema=0.9)
    machine.run.average = begin(machine.run.model)
    return machine


def test_an_average_is_evaluated_at_the_alpha_that_training_has() -> None:
    machine = averaged("resnet", "cosine_ramp")
    train(machine, 5)
    before = figures(machine)
    grow_now(machine, make("widen", "random"))
    assert figures(machine)["val/ema/loss"] == pytest.approx(before["val/ema/loss"], rel=1e-9)
    train(machine, 3)
    assert machine.run.events[-1].alpha < 1
    assert not any(p.requires_grad for p in machine.run.average.parameters())  # type: ignore[union-attr]


def figures(machine: Machine) -> dict[str, float]:
    setup: Setup = machine.setup
    return evaluate_run(machine.run, setup, setup.batches.sets.validation, "val")


def test_going_back_takes_the_average_along() -> None:
    machine = averaged("mlp_batch")
    train(machine, 5)
    assert machine.run.average is not None
    kept: dict[str, Tensor] = copy.deepcopy(dict(machine.run.average.state_dict()))
    before = Before.of(machine.run)
    grow_now(machine, WidenDuplicate())
    train(machine, 3)
    before.restore(machine.run)
    now = machine.run.average.state_dict()
    assert all(torch.equal(now[name], kept[name]) for name in kept)


@pytest.mark.parametrize("stop", some([9, 5, 15], 3))
@pytest.mark.parametrize("operator", options("widen"))
def test_an_average_is_resumed_in_the_same_bits(stop: int, operator: str, tmp_path: Path) -> None:
    ramp = ("warmup=none",) if operator in ("duplicate", "ligo", "sparkling") else ("warmup=lr",)
    made = parts("growth=schedule", "train.ema=0.9", f"widen={operator}", *ramp)
    whole = train_job(made, tmp_path / "whole")
    assert {name for name in whole.bits if name.startswith("average/")}
    assert "val/ema/accuracy" in whole.run.history[-1].metrics
    interrupt = at_step(stop, lambda: _signal())
    train_job(made, tmp_path / "cut", interrupt)
    assert differences(whole, resume(made, tmp_path / "cut")) == []


def _signal() -> None:
    import signal

    signal.raise_signal(signal.SIGINT)
