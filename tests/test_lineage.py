"""Law 2: after a growth every parameter is in the optimizer once, and old entries keep their state.

Optimizers come from `conf/optimizer`, operators from `conf/widen` and `conf/deepen`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from growth_kit import (  # noqa: F401
    QUICK,
    ByHand,
    a_machine,
    a_model,
    a_probe,
    grow_now,
    make,
    old_part,
    one_thread,
    options,
    same,
    snapshot,
    train,
)
from torch import Tensor, nn

from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host, carry_optimizer
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.widen_space import Part, Role, WidenSpace
from progtrain.machine import Machine
from progtrain.optimizer_states.asymmetric import AsymmetricState
from progtrain.optimizer_states.zero import ZeroState
from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.group import OptimizerSet
from progtrain.optimizers.sliced_adamw import SlicedAdamW
from progtrain.run import Event
from progtrain.warmups.zero_init import ZeroInit

OPERATORS = [(g, o) for g in ("widen", "deepen") for o in options(g)]
NO_IDENTITY = ("mlp_layer", DeepenRandom())  # refused under zero_init, see test_operators
MOVING = [
    (name, operator)
    for name in ("mlp_none", "mlp_layer", "mlp_batch", "cnn", "resnet", "user")
    for operator in (WidenRandom(), WidenZero(), DeepenRandom())
    if (name, operator) != NO_IDENTITY
]
WITH_INNER = {"hidden.weight": 16}  # columns a channel behind a flatten


def named_groups(machine: Machine) -> dict[str, list[dict[str, Any]]]:
    """The groups that hold each parameter of the network."""
    run = machine.run
    return {
        name: [g for g in run.optimizer.groups() if any(p is parameter for p in g["params"])]
        for name, parameter in run.model.named_parameters()
    }


def states(machine: Machine) -> dict[str, dict[str, Tensor]]:
    run = machine.run
    return {
        name: {key: value.clone() for key, value in run.optimizer.state_of(name).items()}
        for name in run.optimizer.parameters
    }


@pytest.mark.parametrize("recipe", options("optimizer"))
@pytest.mark.parametrize(("group", "option"), OPERATORS)
@pytest.mark.parametrize("name", ["mlp_batch", "resnet"])
def test_every_parameter_is_in_the_optimizer_once_and_old_entries_keep_their_state(
    recipe: str, group: str, option: str, name: str
) -> None:
    if option == "interleave_half" and name == "mlp_batch":
        pytest.skip("refused: no residual branch, see test_deepen")
    machine = a_machine(a_model(name), make("optimizer", recipe), policy=ZeroState())
    train(machine, 3)
    rates = {k: [g["base_lr"] for g in held] for k, held in named_groups(machine).items()}
    before = states(machine)
    event = grow_now(machine, make(group, option, **QUICK))
    assert_in_one_group(machine)
    for old, held in named_groups(machine).items():
        if old in rates and group == "widen":
            assert [g["base_lr"] for g in held] == rates[old]
    assert_carried(before, states(machine), event)
    train(machine, 2)
    assert all(map(torch.isfinite, (t.sum() for t in snapshot(machine).values())))


def assert_in_one_group(machine: Machine) -> None:
    groups = named_groups(machine)
    assert all(len(held) == 1 for held in groups.values())
    assert sum(len(g["params"]) for g in machine.run.optimizer.groups()) == len(groups)
    assert groups.keys() == machine.run.optimizer.parameters.keys()


def assert_carried(
    before: dict[str, dict[str, Tensor]], after: dict[str, dict[str, Tensor]], event: Event
) -> None:
    """Old entries have their state bit for bit, new entries none, but for a mean that begins."""
    for name, old in before.items():
        new = after.pop(event.edit.rename(name))
        assert old and {"momentum_buffer", "exp_avg"} & old.keys() <= new.keys()
        for key, tensor in old.items():
            if key in new:
                kept = old_part(new[key], tensor, WITH_INNER.get(name, 1))
                assert torch.equal(kept, tensor), (name, key)
                joined = new[key].count_nonzero() - kept.count_nonzero()
                begun = "mu_product" in new and key == "exp_avg_sq"  # optimizer=torch: no counts
                wanted = new[key].numel() - kept.numel() if begun else 0
                assert joined == wanted, (name, key)
    assert not any(after.values()), "a new block has state before its first step"


@pytest.mark.parametrize("recipe", options("optimizer"))
def test_state_behind_a_flatten_follows_its_channels(recipe: str) -> None:
    machine = a_machine(a_model("flat"), make("optimizer", recipe))
    train(machine, 3)
    before = states(machine)
    assert_carried(before, states_after(machine, WidenZero(factor=1.5)), machine.run.events[-1])


def states_after(machine: Machine, operator: Any) -> dict[str, dict[str, Tensor]]:
    grow_now(machine, operator)
    return states(machine)


@pytest.mark.parametrize("recipe", options("optimizer"))
def test_a_block_in_the_middle_moves_the_state_of_those_behind_it(recipe: str) -> None:
    machine = a_machine(a_model("mlp_batch", depth=3), make("optimizer", recipe))
    train(machine, 3)
    before = states(machine)
    distinct = [before[f"blocks.{i}.linear.weight"] for i in range(3)]
    grow_now(machine, ByHand(Edit((InsertBlock("blocks", 1, 0),))))
    after = states(machine)
    assert after["blocks.1.linear.weight"] == {}
    for old, new in ((0, 0), (1, 2), (2, 3)):
        for key in distinct[old]:
            assert torch.equal(after[f"blocks.{new}.linear.weight"][key], distinct[old][key])
    shaped = [next(t for t in state.values() if t.ndim) for state in distinct]
    assert not torch.equal(shaped[1], shaped[2]), "the test could not tell blocks apart"
    assert_in_one_group(machine)


def test_an_event_follows_its_units_and_blocks_through_later_growths() -> None:
    machine = a_machine(a_model("mlp_none"), make("optimizer", "sgd"))
    grow_now(machine, WidenZero(spaces="blocks.1*"))  # that block no longer keeps its input's shape
    grow_now(machine, DeepenRandom())
    grow_now(machine, ByHand(Edit((InsertBlock("blocks", 0, 0), InsertBlock("blocks", 0, 0)))))
    widened, deepened, inserted = machine.run.events
    moved = {"blocks.4.linear.weight", "blocks.4.linear.bias", "head.weight"}
    assert {slab.tensor for slab in widened.slabs} == moved
    assert deepened.blocks == ("blocks.3",)
    assert inserted.blocks == ("blocks.1", "blocks.0")


@pytest.mark.parametrize("recipe", options("optimizer"))
def test_matrices_decay_and_biases_and_norms_do_not(recipe: str) -> None:
    machine = a_machine(a_model("cnn"), make("optimizer", recipe, weight_decay=0.3))
    train(machine, 2)
    for operator in (WidenZero(), DeepenRandom()):
        grow_now(machine, operator)
        for name, held in named_groups(machine).items():
            matrix = machine.run.optimizer.parameters[name].ndim > 1
            assert held[0]["weight_decay"] == (0.3 if matrix else 0.0), name


def gradients(steps: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps)]


def stepped(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, grads: list[Tensor]
) -> list[Tensor]:
    """The parameter after each step."""
    seen: list[Tensor] = []
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
        seen.append(parameter.detach().clone())
    return seen


def a_matrix(rows: int, columns: int) -> nn.Parameter:
    values = torch.linspace(-1, 1, rows * columns, dtype=torch.float64)
    return nn.Parameter(values.reshape(rows, columns))


LR, BETAS, EPS = 0.01, (0.9, 0.999), 1e-8


def torch_adamw(parameter: nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW([parameter], LR, BETAS, EPS, weight_decay=0.1)


def test_the_sliced_adamw_is_torchs_where_nothing_grows() -> None:
    own, theirs, grads = a_matrix(3, 4), a_matrix(3, 4), gradients(50, 3, 4)
    sliced = SlicedAdamW([{"params": [own], "weight_decay": 0.1}], LR, BETAS, EPS)
    for a, b in zip(
        stepped(sliced, own, grads), stepped(torch_adamw(theirs), theirs, grads), strict=True
    ):
        assert (a - b).abs().max() <= 1e-12


def grown_adamw(steps_before: int, grads: list[Tensor]) -> tuple[list[Tensor], nn.Module]:
    """Weights of a layer that grew from 4 to 6 columns after `steps_before` steps of AdamW."""
    recipe = AdamW(LR, *BETAS, EPS, weight_decay=0.1)
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3, bias=False)).double()
    with torch.no_grad():
        net[1].weight.copy_(a_matrix(3, 4))
    old = recipe.build(dict(net.named_parameters()), frozenset())
    for grad in grads[:steps_before]:
        net[1].weight.grad = grad[:, :4].clone()
        old.step()
    grown = Grown(net, columns_of("1.weight"), Host(net, a_probe()))
    grown.edit.apply(net)
    sliced = frozenset({"1.weight"})
    new = recipe.build(dict(net.named_parameters()), sliced)
    carry_optimizer(old, new, grown, sliced, recipe, AsymmetricState())
    seen: list[Tensor] = []
    for grad in grads[steps_before:]:
        net[1].weight.grad = grad.clone()
        new.step()
        seen.append(net[1].weight.detach().clone())
    return seen, net


def columns_of(tensor: str) -> Edit:
    return Edit((WidenSpace("0", 4, 6, (Part(tensor, 1, "unit", Role.CONSUMER),)),))


@pytest.mark.parametrize("steps_before", [0, 1, 40])
def test_new_columns_move_as_under_a_new_adamw_and_old_ones_as_if_nothing_had_grown(
    steps_before: int,
) -> None:
    grads = gradients(steps_before + 30, 3, 6)
    seen, _ = grown_adamw(steps_before, grads)
    alone, never = nn.Parameter(torch.zeros(3, 2, dtype=torch.float64)), a_matrix(3, 4)
    new = stepped(torch_adamw(alone), alone, [g[:, 4:] for g in grads[steps_before:]])
    old = stepped(torch_adamw(never), never, [g[:, :4] for g in grads])[steps_before:]
    for now, fresh, host in zip(seen, new, old, strict=True):
        assert (now[:, 4:] - fresh).abs().max() <= 1e-12
        assert (now[:, :4] - host).abs().max() <= 1e-12


def test_zeros_under_the_old_step_count_would_move_new_columns_three_times_too_far() -> None:
    """The trap that the test above guards: torch keeps one step count a tensor."""
    grads = gradients(3000, 3, 6)
    seen, _ = grown_adamw(2999, grads)
    host = a_matrix(3, 4)
    adamw = torch_adamw(host)
    stepped(adamw, host, [g[:, :4] for g in grads[:2999]])
    naive = nn.Parameter(torch.cat([host.detach(), host.new_zeros(3, 2)], 1))
    padded = torch_adamw(naive)
    stepped(padded, naive, [torch.zeros_like(naive)])
    for key in ("exp_avg", "exp_avg_sq"):
        padded.state[naive][key][:, :4] = adamw.state[host][key]
    padded.state[naive]["step"].fill_(2999)
    naive.detach()[:, :4] = host.detach()
    after = stepped(padded, naive, grads[2999:])[0]
    new, wrong = seen[0][:, 4:].abs(), after[:, 4:].abs()
    assert (new - LR).abs().max() < 1e-8, "the first update of Adam is the learning rate"
    assert (wrong / new).min() > 2.5
    assert (after[:, :4] - seen[0][:, :4]).abs().max() <= 1e-12


@pytest.mark.parametrize("recipe", options("optimizer"))
@pytest.mark.parametrize(("name", "operator"), MOVING)
def test_all_that_is_new_and_silent_moves_within_three_steps(
    recipe: str, name: str, operator: Any
) -> None:
    machine = a_machine(a_model(name), make("optimizer", recipe), ZeroInit(), batch_size=64)
    train(machine, 2)
    event = grow_now(machine, operator)
    before = snapshot(machine)
    train(machine, 3)
    after = snapshot(machine)
    for tensor, parameter in machine.run.model.named_parameters():
        moved = before[f"model/{tensor}"] != after[f"model/{tensor}"]
        new = torch.zeros_like(moved)
        for slab in (slab for slab in event.slabs if slab.tensor == tensor):
            slab.write(new, True)
        if name == "mlp_batch" and parameter.ndim == 1 and "norm" not in tensor:
            continue  # a batch norm takes back whatever the bias in front of it adds
        assert bool(moved.any()), tensor
        assert not bool(new.any()) or moved[new].double().mean() > 0.5, tensor


def test_a_parameter_that_no_optimizer_holds_is_found_at_once() -> None:
    net = nn.Linear(2, 2)
    named = dict(net.named_parameters())
    sgd = torch.optim.SGD([net.weight], lr=0.1)
    with pytest.raises(AssertionError, match=r"in no optimizer: \['bias'\]"):
        OptimizerSet((sgd,), named)
    both = torch.optim.SGD([net.weight, net.bias], lr=0.1)
    with pytest.raises(AssertionError, match="a parameter is in two groups"):
        OptimizerSet((sgd, both), named)


def test_frozen_parameters_of_the_user_stay_frozen_through_growth() -> None:
    model = a_model("mlp_none")
    model.get_parameter("stem.weight").requires_grad_(False)
    machine = a_machine(model, make("optimizer", "adamw"))
    grow_now(machine, WidenZero())
    assert not machine.run.model.get_parameter("stem.weight").requires_grad
    before = machine.run.model.get_parameter("stem.weight").detach().clone()
    train(machine, 2)
    assert torch.equal(before, machine.run.model.get_parameter("stem.weight"))
    assert_in_one_group(machine)


def test_growth_leaves_the_rate_of_every_group_as_it_is() -> None:
    machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw", lr=0.02))
    train(machine, 1)
    grow_now(machine, WidenZero())
    train(machine, 1)
    assert {group["lr"] for group in machine.run.optimizer.groups()} == {0.02}
