"""Parameters that silently do not train are found and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from growth_kit import a_machine, a_model, grow_now, make, one_thread, options, train  # noqa: F401
from torch import Tensor, nn

from progtrain.errors import GrowthError
from progtrain.machine import Machine
from progtrain.optimizers.group import OptimizerSet
from progtrain.optimizers.sgd import SGD


class Forgetful(torch.optim.SGD):
    """Steps all groups but what its first step has not seen: the classic of grown networks."""

    forgets = ""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        held = {id(p): p.detach().clone() for g in self.param_groups for p in g["params"]}
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                if tuple(parameter.shape) == (16, 16):
                    parameter.detach().copy_(held[id(parameter)])


@dataclass(frozen=True)
class Wrong(SGD):
    """An optimizer that holds every parameter and leaves wide ones alone."""

    def build(self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]) -> OptimizerSet:
        return OptimizerSet((Forgetful(list(parameters.values()), self.lr),), parameters)


def notes(machine: Machine) -> list[str]:
    found: list[str] = []
    machine.setup.reporter.noted = lambda run, text: found.append(text)  # type: ignore[method-assign]
    return found


def test_what_has_a_gradient_and_does_not_move_ends_the_run_by_name() -> None:
    machine = a_machine(a_model("mlp_none"), Wrong())
    train(machine, 4)
    grow_now(machine, make("widen", "zero"))
    train(machine, 2)
    with pytest.raises(GrowthError, match=r"blocks.0.linear.weight, blocks.1.linear.weight have a"):
        train(machine, 1)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.spare = a_model("mlp_none"), nn.Linear(2, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def test_what_no_gradient_reaches_is_noted_once_after_the_start_and_after_a_growth() -> None:
    machine = a_machine(Unused(), make("optimizer", "adamw"))
    found = notes(machine)
    train(machine, 6)
    assert found == ["spare.weight, spare.bias have no gradient 3 steps after the start"]
    grow_now(machine, make("widen", "zero", spaces="net.*"))
    train(machine, 6)
    assert found[1:] == ["spare.weight, spare.bias have no gradient 3 steps after the last growth"]


@pytest.mark.parametrize("recipe", options("optimizer"))
@pytest.mark.parametrize("warmup", options("warmup"))
def test_growths_that_train_are_let_pass_without_a_word(recipe: str, warmup: str) -> None:
    machine = a_machine(
        a_model("resnet"), make("optimizer", recipe), make("warmup", warmup), batch_size=32
    )
    found = notes(machine)
    train(machine, 3)
    for group in ("widen", "deepen"):
        grow_now(machine, make(group, "random"))
        train(machine, 4)
    assert found == []
