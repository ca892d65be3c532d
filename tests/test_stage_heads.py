"""A head a stage over one backbone: which answers, which learn, what is frozen by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from growth_kit import (
    CLASSES,
    a_host,
    a_machine,
    a_model,
    grow_now,
    make,
    one_thread,  # noqa: F401
    options,
    snapshot,
    train,
)
from run_kit import Spy, branch, differences, parts, resume
from run_kit import train as run_job
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.errors import ConfigError, GrowthError
from progtrain.evaluation import evaluate as figures
from progtrain.flops import training_flops
from progtrain.growth.add_head import Heads
from progtrain.growth.grow import Host, grow
from progtrain.growth.heads import answering, heads_of, mean_loss, train_every_head
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.add_head import AddHead
from progtrain.growth.operators.add_outputs import AddOutputs
from progtrain.growth.operators.add_stage_head import AddStageHead, free_name
from progtrain.run import Run, Stage
from progtrain.settings import Checkpoints

ADAMW = make("optimizer", "adamw")
HEADED = (  # two more heads at 6 and 14
    *("growth=schedule", "head=stage", "warmup=none", "growth.start={}"),
    "growth.stages.deeper.at=6steps",
    "growth.stages.wider.at=14steps",
    "growth.stages.deeper.operator=${head}",
    "growth.stages.wider.operator=${head}",
)


def stage(host: Host, name: str, fresh: bool = True) -> Host:
    """The host with a head of that stage."""
    grown = grow(replace(host, stage=name), AddStageHead(fresh), 1)
    return Host(grown.model, host.probe)


def test_every_stage_brings_a_head_with_its_name() -> None:
    host = stage(stage(stage(a_host("cnn"), "wider"), "wider"), "2nd task")
    heads = heads_of(host.model)
    assert heads is not None
    assert list(heads.heads) == ["first", "wider", "wider_2", "_2nd_task"]
    assert heads.answers == "_2nd_task"


@pytest.mark.parametrize(
    ("name", "wanted"), [("", "head"), ("first", "first_2"), ("keys", "keys_2"), ("ema", "ema_2")]
)
def test_a_name_that_something_else_has_gets_a_number(name: str, wanted: str) -> None:
    heads = heads_of(stage(a_host("mlp_none"), name).model)
    assert heads is not None and heads.answers == wanted
    assert free_name("a", {"a", "a_2"}) == "a_3"


def test_every_head_is_told_at_one_pass_of_the_backbone() -> None:
    machine = a_machine(a_model("cnn"), ADAMW)
    for name in ("task", "fine"):
        train(machine, 3)
        machine._stage = Stage(name, AddStageHead(fresh=True))
        machine._grow()
    model, split = machine.run.model, machine.setup.batches.sets.validation
    calls: list[int] = []
    handle = model.get_submodule("stages").register_forward_hook(lambda *_: calls.append(1))
    told = figures(machine.run, machine.setup, split, "val")
    handle.remove()
    assert len(calls) == 1
    for name in ("first", "task", "fine"):
        with answering(model, name):
            logits = evaluate(model, split.x)
        loss = float(F.cross_entropy(logits, split.y))
        right = float((logits.argmax(1) == split.y).double().mean())
        assert told[f"val/{name}/loss"] == pytest.approx(loss, rel=1e-6)
        assert told[f"val/{name}/accuracy"] == pytest.approx(right)
    assert told["val/loss"] == told["val/fine/loss"] != told["val/first/loss"]


class Scaled(nn.Module):
    """A network that computes on with what its head gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(16, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return 3.0 * self.head(torch.relu(self.stem(x.flatten(1))))


def test_where_a_network_computes_on_only_the_head_that_answers_is_told() -> None:
    torch.manual_seed(0)
    machine = a_machine(Scaled().double(), ADAMW)
    grow_now(machine, AddHead(fresh=True))
    split = machine.setup.batches.sets.validation
    assert set(figures(machine.run, machine.setup, split, "val")) == {"val/loss", "val/accuracy"}
    training = replace(machine.setup.train, answers="first")
    first = figures(machine.run, replace(machine.setup, train=training), split, "val")
    with answering(machine.run.model, "first"):
        loss = F.cross_entropy(evaluate(machine.run.model, split.x), split.y)
    assert first["val/loss"] == pytest.approx(float(loss), rel=1e-6)
    train_every_head(machine.run.model)
    with pytest.raises(ConfigError, match="computes on with what heads give"):
        mean_loss(machine.run.model, split.x, split.y)


def test_a_head_that_knows_fewer_classes_has_no_loss_to_tell() -> None:
    machine = a_machine(a_model("mlp_batch"), ADAMW)
    grow_now(machine, AddHead())
    grow_now(machine, AddOutputs(add=2))
    split = machine.setup.batches.sets.validation
    told = figures(machine.run, machine.setup, split, "val")
    assert "val/first/accuracy" in told and "val/first/loss" not in told
    train_every_head(machine.run.model)
    with pytest.raises(ConfigError, match=r"outputs differ: \{'first': 3, 'second': 5\}"):
        mean_loss(machine.run.model, split.x, split.y)


def test_a_head_by_name_answers_in_evaluation_and_training_is_the_same(tmp_path: Path) -> None:
    newest = run_job(parts(*HEADED), tmp_path / "a", store=False)
    first = run_job(parts(*HEADED, "train.answers=first"), tmp_path / "b", store=False)
    last = first.run.history[-1].metrics
    assert last["val/loss"] == last["val/first/loss"] != last["val/wider/loss"]
    told = newest.run.history[-1].metrics
    assert told["val/loss"] == told["val/wider/loss"]
    assert {"val/deeper/accuracy", "val/wider/accuracy", "val/first/accuracy"} <= set(told)
    names = [name for name in newest.spy.digest if name.startswith("model/")]
    assert all(newest.spy.digest[name] == first.spy.digest[name] for name in names)


def heads(run: Run) -> Heads:
    found = heads_of(run.model)
    assert found is not None
    return found


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("learn", ["newest", "all"])
def test_either_the_newest_head_learns_or_all_do(learn: str, tmp_path: Path) -> None:
    then: dict[str, dict[str, Tensor]] = {}

    def act(call: str, run: Run) -> None:
        if call == "grew" and run.clock.step == 14:
            then.update({name: copied(head) for name, head in heads(run).heads.items()})

    made = parts(*HEADED, "head.fresh=true", f"train.heads={learn}")
    run = run_job(made, tmp_path, Spy(act), store=False).run
    for name, head in heads(run).heads.items():
        moved = not torch.equal(head.state_dict()["weight"], then[name]["weight"])
        assert moved == (learn == "all" or name == "wider"), name
        assert all(p.requires_grad == moved for p in head.parameters())


def test_all_heads_learn_by_the_mean_of_their_losses_in_one_pass() -> None:
    host = stage(stage(a_host("mlp_none"), "b"), "c")
    train_every_head(host.model)
    host.model.train()
    x, y = host.probe.x, host.probe.y
    calls: list[int] = []
    handle = host.model.get_submodule("blocks").register_forward_hook(lambda *_: calls.append(1))
    loss, logits = mean_loss(host.model, x, y)
    handle.remove()
    loss.backward()
    each: list[Tensor] = []
    for name in ("first", "b", "c"):
        with answering(host.model, name):
            each.append(F.cross_entropy(host.model(x), y))
    assert len(calls) == 1
    torch.testing.assert_close(loss, sum(each[1:], start=each[0]) / 3)
    with answering(host.model, "c"):
        torch.testing.assert_close(logits, host.model(x))
    found = heads_of(host.model)
    assert found is not None
    assert all(p.grad is not None and p.grad.any() for p in found.parameters())


def test_the_cost_of_all_heads_is_counted() -> None:
    host = stage(a_host("mlp_none"), "b")
    newest = training_flops(host.model, host.probe.x)
    train_every_head(host.model)
    weight = host.model.get_parameter("head.heads.b.weight")
    # forward, and backward to the inputs and to the weight: two FLOPs each
    assert training_flops(host.model, host.probe.x) == newest + 6 * weight.numel()


@pytest.mark.parametrize("at", [4, 8, 16])
@pytest.mark.parametrize(
    "chosen",
    [
        ("train.heads=all",),
        ("train.answers=deeper", "train.ema=0.9"),
        ("train.freeze=[stem.*,head.*first*]", "train.thaw=10steps"),
        ("warmup=frozen_host", "warmup.isolation=4steps"),
    ],
    ids=["all", "answers", "freeze", "isolation"],
)
def test_runs_with_heads_are_resumed_in_the_same_bits(
    chosen: tuple[str, ...], at: int, tmp_path: Path
) -> None:
    made = parts(*HEADED, "head.fresh=true", *chosen)
    whole = run_job(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / "whole")
    again = resume(made, branch(whole.directory, at, tmp_path / "again"))
    assert not differences(whole, again)


def test_a_backbone_is_frozen_bit_for_bit_while_a_head_joins_and_learns_again_afterwards() -> None:
    """Statistics of batch norm included, and what the optimizer remembers of the backbone."""
    warmup = make("warmup", "frozen_host", isolation="4steps")
    machine = a_machine(a_model("cnn"), ADAMW, warmup)
    train(machine, 3)
    grow_now(machine, AddHead(fresh=True))
    then = snapshot(machine)
    train(machine, 4)
    now = snapshot(machine)
    host = [name for name in then if "heads.second" not in name]
    assert any("running_mean" in name for name in host)
    assert any(name.startswith("optimizer/") for name in host)
    assert all(torch.equal(now[name], then[name]) for name in host)
    new = [name for name in then if name.startswith("model/") and "heads.second" in name]
    assert new and not any(torch.equal(now[name], then[name]) for name in new)
    train(machine, 1)
    later = snapshot(machine)
    moved = [name for name in host if name.startswith("model/") and "heads" not in name]
    assert not any(torch.equal(later[name], now[name]) for name in moved)


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_what_is_frozen_by_name_neither_moves_nor_decays(optimizer: str, tmp_path: Path) -> None:
    then: dict[str, Tensor] = {}

    def act(call: str, run: Run) -> None:
        if call == "started":
            then.update(copied(run.model))

    chosen = (f"optimizer={optimizer}", "optimizer.weight_decay=0.1", "train.freeze=[blocks.0.*]")
    spy = Spy(act)
    run = run_job(parts("growth=none", *chosen), tmp_path, spy, store=False).run
    for name, parameter in run.model.named_parameters():
        frozen = name.startswith("blocks.0.")
        assert torch.equal(parameter, then[name]) == frozen, name
        assert bool(run.optimizer.state_of(name)) != frozen
    assert not any("gradient" in note for note in spy.notes)


def test_an_optimizer_that_is_frozen_whole_is_no_trouble_to_loss_scaling() -> None:
    """Muon's matrices are in an optimizer of their own; fp16 scales losses."""
    machine = a_machine(
        a_model("mlp_none"), make("optimizer", "muon"), clip=1.0, freeze=["*.weight"]
    )
    machine.setup.engine.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    assert len(machine.run.optimizer.optimizers) == 2
    then = copied(machine.run.model)
    train(machine, 2)
    for name, parameter in machine.run.model.named_parameters():
        assert torch.equal(parameter, then[name]) == name.endswith("weight"), name


def test_what_was_frozen_trains_from_the_declared_time_on(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def act(call: str, run: Run) -> None:
        if call == "stepped":
            seen.append(run.model.get_parameter("head.weight").detach().clone())

    chosen = ("growth=none", "train.freeze=[head.*]", "train.thaw=9steps")
    run_job(parts(*chosen), tmp_path, Spy(act), store=False)
    assert all(torch.equal(weight, seen[0]) for weight in seen[:9])
    assert not torch.equal(seen[9], seen[8])


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (("train.answers=third",), "'third' is no head of this run; heads: first, deeper, wider"),
        (("train.freeze=[tail.*]",), "'tail.*' is the name of no parameter .* stem.weight"),
        (("train.freeze=['*']",), "freezes every parameter"),
    ],
)
def test_names_that_nothing_has_are_refused_before_the_start(
    chosen: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    spy = Spy()
    with pytest.raises(ConfigError, match=why):
        run_job(parts(*HEADED, *chosen), tmp_path, spy, store=False)
    assert not spy.rows


@pytest.mark.parametrize("operator", [AddHead(), AddStageHead()])
def test_a_tied_head_is_told_why_no_other_joins(operator: AddHead | AddStageHead) -> None:
    with pytest.raises(GrowthError, match=r"cannot get another head: .*tied.*model\.tied=false"):
        grow(a_host("tied"), operator, 0)
