"""What an optimizer remembers across a growth, held against the gradients it would have seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from growth_kit import (  # noqa: F401
    MODELS,
    a_host,
    a_machine,
    a_model,
    grow_now,
    make,
    one_thread,
    options,
    snapshot,
    train,
)
from torch import Tensor

from progtrain.errors import SettingError
from progtrain.growth.grow import Grown, grow
from progtrain.growth.moments import scaled
from progtrain.growth.newborn import widened
from progtrain.growth.operators.gradients import gradients, looking
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.widen_space import Norm
from progtrain.machine import Machine
from progtrain.optimizers.torch_optimizer import TorchOptimizer

EVEN = {"unevenness": 0.0}
COPIES = [
    ("*", 2.0), ("*", 3.0), ("*:*", 2.0), ("stem|stages.0*", 1.5),
]  # fmt: skip
ADAMW = make("optimizer", "adamw")


def seen(grown: Grown) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients of the host, in the shapes after the growth, and of the grown network."""
    found: list[dict[str, Tensor]] = []
    for model in (grown.host.model, grown.model):
        with looking(model):
            found.append({n: g.detach() for n, g in gradients(model, grown.host.probe).items()})
    return found[0], found[1]


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-12 * max(1.0, float(b.abs().max())))


def applied(host: Any, operator: Any) -> Grown:
    try:
        grown = grow(host, operator, 3)
    except Exception as error:
        pytest.skip(str(error))
    if grown.edit.inexact:
        pytest.skip(grown.edit.inexact)
    return grown


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("pattern", "factor"), COPIES)
def test_moments_of_copies_are_those_of_the_gradients_they_get(
    name: str, pattern: str, factor: float
) -> None:
    grown = applied(a_host(name), WidenDuplicate(pattern, factor, **EVEN))
    host, wide = seen(grown)
    for parameter, gradient in host.items():
        target = grown.edit.rename(parameter)
        assert close(scaled(grown, parameter, gradient, 1, copies=True), wide[target]), parameter
        squared = scaled(grown, parameter, gradient.square(), 2, copies=True)
        assert close(squared, wide[target].square()), parameter
        alone = scaled(grown, parameter, gradient, 1, copies=False)
        old = grown.edit.carry(parameter, torch.ones_like(gradient)).bool()
        assert torch.equal(alone[~old], torch.zeros_like(alone[~old]))
        assert close(alone[old], wide[target][old]), parameter


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pattern", ["*", "*:*"])
def test_old_entries_have_the_moments_of_their_gradients_where_norms_are_padded(
    name: str, pattern: str
) -> None:
    grown = applied(a_host(name), WidenZero(pattern, 1.5))
    if any(change.norm is Norm.LAYER for change in widened(grown.edit)):
        pytest.skip("new units are the mean and take their part of the gradient's mean")
    host, wide = seen(grown)
    for parameter, gradient in host.items():
        now = scaled(grown, parameter, gradient, 1, copies=True)
        old = grown.edit.carry(parameter, torch.ones_like(gradient)).bool()
        assert close(now[old], wide[grown.edit.rename(parameter)][old]), parameter


def a_trained(policy: str, recipe: str = "adamw") -> Machine:
    machine = a_machine(
        a_model("mlp_none"), make("optimizer", recipe), policy=make("optimizer_state", policy)
    )
    train(machine, 5)
    return machine


def moment(machine: Machine, name: str = "stem.weight") -> Tensor:
    state = machine.run.optimizer.state_of(name)
    return state.get("exp_avg", state.get("momentum_buffer", torch.zeros(())))


@pytest.mark.parametrize("recipe", ["adamw", "sgd"])
def test_each_policy_keeps_what_it_says(recipe: str) -> None:
    before = moment(a_trained("zero", recipe)).clone()
    found: dict[str, Tensor] = {}
    for policy in options("optimizer_state"):
        machine = a_trained(policy, recipe)
        grow_now(machine, WidenDuplicate("stem", 2.0, **EVEN))
        found[policy] = moment(machine)
    assert torch.equal(found["zero"], torch.cat([before, 0 * before]))
    assert torch.equal(found["asymmetric"], torch.cat([before / 2, 0 * before]))
    assert torch.equal(found["carry"], torch.cat([before / 2, before / 2]))
    assert not found["reset"].any()


def test_a_reset_forgets_tensors_that_did_not_grow_as_well() -> None:
    machine = a_trained("reset")
    assert machine.run.optimizer.state_of("head.bias")
    grow_now(machine, WidenZero("stem"))
    assert not machine.run.optimizer.state_of("head.bias")
    train(machine, 1)
    assert machine.run.optimizer.state_of("head.bias")["step"] == 1


def test_counts_of_a_copy_are_those_of_its_source_and_new_units_count_from_zero() -> None:
    for policy, operator, started in (
        ("carry", WidenDuplicate("stem", 2.0, **EVEN), 8),
        ("asymmetric", WidenDuplicate("stem", 2.0, **EVEN), 0),
        ("carry", WidenZero("stem", 2.0), 0),
    ):
        machine = a_trained(policy)
        grow_now(machine, operator)
        ones = machine.run.optimizer.state_of("stem.weight")["ones2"]
        assert int((ones[8:] > 0).all(1).sum()) == started
        torch.testing.assert_close(ones[:8], torch.full_like(ones[:8], 1 - 0.99**5))


def test_equal_copies_with_equal_state_stay_equal_and_uneven_ones_part() -> None:
    """Why `asymmetric` is the default."""
    for policy, unevenness, alike in (
        ("carry", 0.0, True), ("asymmetric", 0.0, False), ("carry", 0.5, False),
    ):  # fmt: skip
        machine = a_trained(policy)
        grow_now(machine, WidenDuplicate("stem", 2.0, unevenness=unevenness))
        train(machine, 100)
        rows = machine.run.model.get_parameter("stem.weight").detach()
        cosine = torch.cosine_similarity(rows[:8], rows[8:]).max()
        assert bool(cosine > 1 - 1e-9) is alike, (policy, unevenness, cosine)


@pytest.mark.parametrize("recipe", options("optimizer"))
@pytest.mark.parametrize("policy", options("optimizer_state"))
def test_every_policy_trains_on_under_every_optimizer(recipe: str, policy: str) -> None:
    machine = a_trained(policy, recipe)
    grow_now(machine, WidenDuplicate("*", 2.0))
    grow_now(machine, make("deepen", "stack"))
    before = snapshot(machine)
    train(machine, 5)
    after = snapshot(machine)
    names = [name for name in before if name.startswith("model/")]
    assert all(bool(torch.isfinite(after[name]).all()) for name in names)
    assert not any(torch.equal(before[name], after[name]) for name in names)


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam", "AdamW"])
def test_new_entries_under_one_count_a_tensor_do_not_leap(name: str) -> None:
    """torch's own optimizers would move them by 3 × the learning rate and more."""
    beta2 = {"betas": (0.9, 0.999)}
    recipe = TorchOptimizer(name, lr=1e-3, arguments=beta2)
    machine = a_machine(a_model("mlp_none"), recipe)
    train(machine, 200)
    grow_now(machine, WidenZero("stem", 2.0))
    before = machine.run.model.get_parameter("blocks.0.linear.weight").detach().clone()
    train(machine, 10)
    after = machine.run.model.get_parameter("blocks.0.linear.weight").detach()
    moved = (after - before).abs()
    assert float(moved[:, 8:].max()) < 3 * float(moved[:, :8].max())
    assert float((moved[:, 8:] > 0).double().mean()) > 0.5, "the others are read of dead units"


def test_a_class_of_torch_that_cannot_grow_is_refused_with_the_reason() -> None:
    with pytest.raises(SettingError, match=r"Adafactor \(its state has not the shape"):
        TorchOptimizer("Adafactor")
    with pytest.raises(SettingError, match="Did you mean 'RMSprop'"):
        TorchOptimizer("RMSProp")
    with pytest.raises(SettingError, match="unexpected keyword argument 'beta'"):
        TorchOptimizer("NAdam", arguments={"beta": 0.9})
