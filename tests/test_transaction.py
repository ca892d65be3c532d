"""A growth happens wholly or not at all, and says why where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from growth_kit import (  # noqa: F401
    CLASSES,
    AtSteps,
    ByHand,
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
from torch.nn import functional as F

from progtrain.errors import ConfigError, GrowthError
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.operators.deepen_stack import DeepenStack
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.plan import plan
from progtrain.growth.widen_space import Part, Role, WidenSpace
from progtrain.machine import Machine
from progtrain.run import Stage
from progtrain.warmups.linear_ramp import LinearRamp
from progtrain.warmups.zero_init import ZeroInit


@dataclass(frozen=True)
class Widens:
    """What `WidenZero` does, and then `spoil`."""

    spoil: Callable[[Grown], None]
    change: Callable[[Edit], Edit] = lambda edit: edit
    preserves: bool = True
    shares: bool = False

    def propose(self, host: Host) -> Edit:
        return self.change(WidenZero().propose(host))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        WidenZero().fill(grown, generator)
        self.spoil(grown)

    def flops(self, grown: Grown) -> float:
        return 0.0


def fail(grown: Grown) -> None:
    raise KeyError("the operator's own fault")


def shift(grown: Grown) -> None:
    grown.model.get_submodule("head").bias.detach().add_(1e-6)


def blow_up(grown: Grown) -> None:
    grown.model.get_submodule("head").bias.detach().fill_(float("nan"))


def forget_a_consumer(edit: Edit) -> Edit:
    change = edit.changes[-1]
    assert isinstance(change, WidenSpace)
    kept = tuple(part for part in change.parts if part.role is not Role.CONSUMER)
    return Edit((*edit.changes[:-1], replace(change, parts=kept)))


def nothing(grown: Grown) -> None:
    pass


def a_trained_machine(model: nn.Module | None = None, **more: Any) -> Machine:
    machine = a_machine(model or a_model("mlp_batch"), make("optimizer", "adamw"), **more)
    train(machine, 3)
    return machine


def assert_untouched(machine: Machine, act: Callable[[], object]) -> None:
    """Nothing of the run has changed, and it trains on as one that never tried to grow."""
    run = machine.run
    before, held = snapshot(machine), (run.model, run.optimizer, run.clock.now, run.params)
    events, rng = list(run.events), torch.get_rng_state()
    act()
    assert same(before, snapshot(machine))
    assert held == (run.model, run.optimizer, run.clock.now, run.params)
    assert run.events == events and torch.equal(rng, torch.get_rng_state())
    assert all(p.requires_grad for p in run.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in run.model.modules())


@pytest.mark.parametrize(
    ("operator", "error", "told"),
    [
        (Widens(fail), KeyError, "own fault"),
        (Widens(shift), GrowthError, r"was to preserve the function and changed it by"),
        (Widens(blow_up), GrowthError, "numbers that are not finite"),
        (Widens(nothing, forget_a_consumer), GrowthError, "Stage grown: the grown network does"),
        (WidenZero(spaces="nowhere"), GrowthError, "matches no space"),
        (ByHand(Edit((InsertBlock("block", 0, 0),))), AttributeError, "block"),
    ],
)
def test_a_growth_that_fails_leaves_the_run_untouched(
    operator: Any, error: type[Exception], told: str
) -> None:
    machine, twin = a_trained_machine(), a_trained_machine()

    def act() -> None:
        with pytest.raises(error, match=told):
            grow_now(machine, operator)

    assert_untouched(machine, act)
    train(machine, 2), train(twin, 2)
    assert same(snapshot(machine), snapshot(twin))


def test_a_failed_second_growth_leaves_the_first_one_as_it_was() -> None:
    machine = a_trained_machine()
    grow_now(machine, WidenZero())
    train(machine, 2)

    def act() -> None:
        with pytest.raises(GrowthError, match="was to preserve"):
            grow_now(machine, Widens(shift))

    assert_untouched(machine, act)
    assert len(machine.run.events) == 1


def test_a_change_that_was_not_promised_is_no_failure() -> None:
    machine = a_trained_machine()
    event = grow_now(machine, Widens(shift, preserves=False))
    assert not event.promised and event.preservation_error > 1e-8


def test_a_warmup_that_starts_silent_is_a_promise_too() -> None:
    machine = a_trained_machine(warmup=ZeroInit())
    event = grow_now(machine, WidenRandom())
    assert event.promised and event.preservation_error <= 1e-12
    with pytest.raises(GrowthError, match="was to preserve"):
        grow_now(machine, Widens(shift, preserves=False))


def test_an_edit_that_cannot_preserve_the_function_promises_nothing() -> None:
    machine = a_trained_machine(a_model("mlp_layer"))
    event = grow_now(machine, WidenDuplicate(factor=1.5))
    assert not event.promised and event.preservation_error > 1e-8
    assert "cannot be copied equally" in event.edit.inexact


@pytest.mark.parametrize("warmup", [ZeroInit(), LinearRamp()])
def test_a_refused_pair_of_operator_and_warmup_leaves_the_run_untouched(warmup: Any) -> None:
    machine = a_trained_machine(warmup=warmup)

    def act() -> None:
        with pytest.raises(ConfigError, match="warmup=none"):
            grow_now(machine, WidenDuplicate())

    assert_untouched(machine, act)


class Literal(nn.Module):
    """Its forward says a width in digits, so nothing in it can grow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 1), nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(-1, 64))


class Picky(Literal):
    """It demands four channels in a way that no trace sees."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        if len(h[0]) != 4:
            raise RuntimeError("four channels are expected")
        return self.head(h.flatten(1))


class Functional(nn.Module):
    """Its weights are held by no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 16))
        self.down = nn.Parameter(torch.randn(CLASSES, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(F.linear(x.flatten(1), self.up)), self.down)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Literal, r"conv: view\(\) in its code wants 64 where 80 would be needed"),
        (
            Picky,
            "Stage grown: the grown network does not run: four channels .* is as it was",
        ),
    ],
)
def test_a_network_that_runs_at_one_size_only_is_told_so_before_and_at_the_growth(
    network: type[nn.Module], told: str
) -> None:
    for operator in (WidenZero(), WidenRandom(), WidenDuplicate()):
        machine = a_trained_machine(network().double(), growth=AtSteps({5: operator}))
        with pytest.raises(GrowthError, match=told):
            plan(machine.run, machine.setup)
        with pytest.raises(GrowthError, match=told):
            grow_now(machine, operator)


def test_weights_that_no_layer_holds_are_blended_in_as_well() -> None:
    for warmup in (LinearRamp(), ZeroInit()):
        torch.manual_seed(0)
        machine = a_trained_machine(Functional().double(), warmup=warmup)
        event = grow_now(machine, WidenRandom())
        assert event.promised and event.preservation_error <= 1e-12


def test_a_plan_lists_every_stage_and_grows_nothing() -> None:
    stages = {5: WidenZero(), 6: DeepenStack(add=2)}
    machine = a_trained_machine(growth=AtSteps(stages))
    rows: list[Any] = []
    assert_untouched(machine, lambda: rows.extend(plan(machine.run, machine.setup)))
    for operator in stages.values():
        grow_now(machine, operator)
    sizes = [event.params_after for event in machine.run.events]
    assert [row.params for row in rows[1:]] == sizes and rows[0].params < sizes[0] < sizes[1]
    assert [row.flops for row in rows[1:]] == [event.flops_after for event in machine.run.events]
    assert rows[2].what == "+2 blocks in blocks"


def test_the_machine_grows_by_the_same_network_as_a_plan_does() -> None:
    """Growth draws from its own seed: how often data or anything else was drawn is no matter."""
    first, second = a_trained_machine(), a_trained_machine()
    torch.rand(7)
    for machine in (first, second):
        grow_now(machine, WidenRandom())
        torch.rand(3)
    assert same(snapshot(first), snapshot(second))


def test_a_part_of_no_tensor_names_the_tensor() -> None:
    part = Part("stem.weights", 0, "unit", Role.PRODUCER)
    machine = a_trained_machine()

    def act() -> None:
        with pytest.raises(AttributeError, match="weights"):
            machine._stage = Stage("typo", ByHand(Edit((WidenSpace("stem", 8, 9, (part,)),))))
            machine._grow()

    assert_untouched(machine, act)
