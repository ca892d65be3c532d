"""What every growth must show, who is named when it does not, and the way back."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import pytest
import torch
from growth_kit import (  # noqa: F401
    AtSteps,
    a_host,
    a_machine,
    a_model,
    grow_now,
    make,
    one_thread,
    same,
    snapshot,
    train,
)
from torch import Tensor, nn

from progtrain.errors import ConfigError, GrowthError
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, grow
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.deepen_identity import DeepenIdentity
from progtrain.growth.operators.deepen_stack import DeepenStack
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.plan import plan
from progtrain.growth.proof import measure
from progtrain.growth.rollback import Before
from progtrain.machine import Machine
from progtrain.objective import cross_entropy
from progtrain.settings import Proof

GUILTY = "blocks.1.linear"


@dataclass(frozen=True)
class Spoils(WidenZero):
    """Preserves, but for one space."""

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        super().fill(grown, generator)
        for change in grown.edit.changes:
            if getattr(change, "space", "") == GUILTY:
                for slab in change.slabs():
                    if slab.consumer:
                        slab.write(grown.model.get_parameter(slab.tensor).detach(), 0.1)


def a_run(norm: str = "mlp_none", **proof: object) -> Machine:
    machine = a_machine(a_model(norm), make("optimizer", "adamw"))
    machine.setup = replace(machine.setup, proof=Proof(**proof))  # type: ignore[arg-type]
    train(machine, 3)
    return machine


def test_the_space_that_moved_the_output_is_named_and_nothing_has_changed() -> None:
    machine = a_run()
    before = snapshot(machine)
    told = r"proof.tolerance: 1e-10\).* The network is as it was. Spoils alone moves it by (.*)\."
    with pytest.raises(GrowthError, match=told) as error:
        grow_now(machine, Spoils())
    assert GUILTY in str(error.value).partition("alone moves it by")[2]
    assert "stem" not in str(error.value).partition("alone moves it by")[2]
    assert same(before, snapshot(machine)) and not machine.run.events


def test_a_tolerance_of_ones_own_lets_more_pass_and_required_holds_all_to_it() -> None:
    assert grow_now(a_run(tolerance=1e9), Spoils()).preservation_error > 1e-3
    assert not grow_now(a_run(), WidenRandom()).promised
    with pytest.raises(GrowthError, match=r"must, by proof.required=true, keep it .*: 1e-10"):
        grow_now(a_run(required=True), WidenRandom())
    assert grow_now(a_run(required=True), WidenZero()).promised


def test_the_figures_are_what_they_are_called() -> None:
    machine = a_run()
    host, probe = copy.deepcopy(machine.run.model), machine.run.probe
    event = grow_now(machine, WidenRandom())
    before, after = evaluate(host, probe.x), evaluate(machine.run.model, probe.x)
    assert event.output_change == float((after - before).abs().max()) > 0
    assert event.preservation_error == event.output_change / float(before.abs().max())
    assert event.loss_before == float(cross_entropy(before, probe.y))
    assert event.loss_after == float(cross_entropy(after, probe.y)) != event.loss_before


def test_dropout_and_statistics_of_the_batch_do_not_enter_the_proof() -> None:
    """The host may be training; what is compared is the function, not two random draws."""
    model = torch.nn.Sequential(a_model("mlp_batch"), torch.nn.Dropout(0.5)).double()
    machine = a_machine(model, make("optimizer", "sgd"))
    train(machine, 2)
    assert grow_now(machine, WidenZero()).preservation_error <= 1e-12
    assert all(module.training for module in machine.run.model.modules())


def test_numbers_that_are_not_finite_and_outputs_of_another_shape_never_pass() -> None:
    y, good = torch.zeros(2, dtype=torch.long), torch.ones(2, 3)
    with pytest.raises(GrowthError, match="not finite"):
        measure(good, torch.tensor([[1.0, 2, float("nan")]] * 2), y)
    with pytest.raises(GrowthError, match=r"is \(3, 3\), the host's was \(2, 3\)"):
        measure(good, torch.ones(3, 3), y)
    assert measure(good, torch.ones(2, 4), y).change == 0  # a class has joined


@pytest.mark.parametrize("operator", [WidenRandom(), WidenDuplicate(), DeepenStack()], ids=str)
def test_the_way_back_restores_everything_bit_for_bit(operator: object) -> None:
    machine = a_run("mlp_batch")
    before, snap, params = Before.of(machine.run), snapshot(machine), machine.run.params
    grow_now(machine, operator)  # type: ignore[arg-type]
    train(machine, 5)
    assert machine.run.params > params
    before.restore(machine.run)
    assert same(snap, snapshot(machine)) and machine.run.params == params
    assert not machine.run.events


def test_a_run_that_went_back_trains_on_as_if_it_had_never_grown() -> None:
    grown, plain = a_run("mlp_batch"), a_run("mlp_batch")
    before, moment = Before.of(grown.run), grown.run.clock.now
    grow_now(grown, WidenZero())
    train(grown, 4)
    before.restore(grown.run)
    grown.run.clock.now = moment  # the same batches again
    again = Machine(grown.run, grown.setup)
    train(again, 6), train(plain, 6)
    assert same(snapshot(again), snapshot(plain))


@pytest.mark.parametrize("name", ["mlp_layer", "resnet", "user", "flat"])
@pytest.mark.parametrize("operator", [WidenZero(factor=1.5), DeepenIdentity()], ids=str)
def test_an_edit_can_be_taken_out_of_a_network_that_has_trained(
    name: str, operator: WidenZero | DeepenIdentity
) -> None:
    host = a_host(name)
    try:
        grown = grow(host, operator, 3)
    except GrowthError:
        pytest.skip("this model has nothing for the operator")
    edit = Edit.from_json(grown.edit.to_json())
    before = {key: tensor.clone() for key, tensor in grown.model.state_dict().items()}
    edit.revert(grown.model)
    assert repr(grown.model) == repr(host.model)
    for key, tensor in host.model.state_dict().items():
        now = grown.model.state_dict()[key]
        assert now.shape == tensor.shape
        scaled = key in {n for c in edit.changes for n in getattr(c, "rescaled_norms", ())}
        assert scaled or torch.equal(now, tensor), key
    edit.apply(grown.model)
    assert {k: t.shape for k, t in grown.model.state_dict().items()} == {
        k: t.shape for k, t in before.items()
    }


def test_a_growth_that_cannot_fit_into_memory_is_refused_before_the_clock_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = a_machine(
        a_model("mlp_none"), make("optimizer", "adamw"), growth=AtSteps({5: WidenZero(factor=64)})
    )
    assert len(plan(machine.run, machine.setup)) == 2
    monkeypatch.setattr(type(machine.setup.engine), "free_memory", lambda self: 2**20)
    with pytest.raises(ConfigError, match=r"would need at least 0\.0 GiB .* are free\. Declare"):
        plan(machine.run, machine.setup)


def test_a_check_runs_in_full_precision_whatever_the_run_trains_in() -> None:
    seen: list[tuple[str, bool]] = []

    class Telling(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            precision = torch.get_float32_matmul_precision()
            seen.append((precision, torch.backends.cudnn.allow_tf32))
            return super().forward(input)

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        evaluate(Telling(2, 2), torch.ones(1, 2))
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
    assert seen == [("highest", False)]
