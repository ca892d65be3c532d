"""Counts of entries are let go where all have come to 1, and nothing else changes by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_kit import Spy, branch, differences, parts, resume, train
from torch import Tensor, nn

from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.group import OptimizerSet
from progtrain.optimizers.sliced_adamw import SlicedAdamW
from progtrain.run import Run
from progtrain.settings import Checkpoints
from progtrain.withheld import step_unless

RECIPE = AdamW(0.01, 0.1, 0.5, weight_decay=0.1)  # 22 steps until a count of β = 0.5 is 1
OLD, SOON, LATE = 30, 10, 30  # steps before the growth, and two after it


def itself(numbers: Tensor) -> Tensor:
    return numbers


def halves() -> tuple[OptimizerSet, dict[str, nn.Parameter]]:
    """A tensor of which the right half is new, and one that is old."""
    torch.manual_seed(0)
    made = {name: nn.Parameter(torch.randn(3, 4)) for name in ("mixed", "old")}
    return RECIPE.build(made, frozenset(made)), made


def gradients(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, generator=generator) for _ in range(steps)]


def step(made: OptimizerSet, gradient: Tensor, withheld: bool | Tensor = False) -> None:
    for parameter in made.parameters.values():
        parameter.grad = gradient.clone()
    for each in made.optimizers:
        if isinstance(withheld, Tensor):
            step_unless(each, withheld)
        else:
            each.step()


def grown(steps: int) -> tuple[OptimizerSet, list[Tensor]]:
    """Optimizer and later gradients, `steps` after the right half of `mixed` has joined."""
    made, parameters = halves()
    grads = gradients(OLD + steps + 20)
    for gradient in grads[:OLD]:
        step(made, gradient)
    for tensor in made.state_of("mixed").values():
        tensor[:, 2:] = 0
    with torch.no_grad():
        parameters["mixed"][:, 2:] = 1.0
    for gradient in grads[OLD : OLD + steps]:
        step(made, gradient)
    return made, grads[OLD + steps :]


def kept(made: OptimizerSet) -> dict[str, bool]:
    """Whether the entries of a tensor are still counted."""
    return {name: "ones1" in made.state_of(name) for name in made.parameters}


def test_a_tensor_is_counted_until_its_youngest_entries_are_old() -> None:
    made, later = grown(SOON)
    made.settle(itself)
    assert kept(made) == {"mixed": True, "old": False}
    for gradient in later[: LATE - SOON]:
        step(made, gradient)
    made.settle(lambda numbers: numbers + 2)  # another process has younger ones
    assert kept(made) == {"mixed": True, "old": False}
    made.settle(itself)
    assert kept(made) == {"mixed": False, "old": False}
    assert set(made.state_of("mixed")) == {"exp_avg", "exp_avg_sq"}


def test_without_counts_a_step_is_what_it_was() -> None:
    (one, later), (other, _) = grown(LATE), grown(LATE)
    other.settle(itself)
    assert kept(one)["mixed"] and not kept(other)["mixed"]
    for gradient in later:
        step(one, gradient)
        step(other, gradient)
    for name in one.parameters:
        torch.testing.assert_close(one.parameters[name], other.parameters[name], rtol=0, atol=2e-6)
        for key in ("exp_avg", "exp_avg_sq"):
            a, b = one.state_of(name)[key], other.state_of(name)[key]
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_masked_step_leaves_counted_and_settled_tensors_as_they_are() -> None:
    (one, later), (other, _) = grown(SOON), grown(SOON)
    one.settle(itself)
    other.settle(itself)  # one of two tensors
    for index, gradient in enumerate(later):
        bad = torch.full_like(gradient, float("nan"))
        step(one, bad, torch.tensor(1.0))
        step(one, gradient, torch.tensor(0.0))
        step(other, gradient)
        for name in one.parameters:
            assert torch.equal(one.parameters[name], other.parameters[name]), (index, name)
            for key, tensor in one.state_of(name).items():
                assert torch.equal(tensor, other.state_of(name)[key]), (index, name, key)


def test_a_masked_step_may_be_the_first() -> None:
    made, parameters = halves()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    step(made, torch.full((3, 4), float("nan")), torch.tensor(1.0))
    assert all(torch.equal(parameters[name], before[name]) for name in before)
    step(made, torch.ones(3, 4), torch.tensor(0.0))
    for name, parameter in parameters.items():  # of a new AdamW, whatever the gradient
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.001) - 0.01)


def test_what_grows_again_begins_to_count_where_it_ended() -> None:
    made, _ = grown(LATE)
    made.settle(itself)
    state = RECIPE.per_entry("mixed", made.parameters["mixed"], made.state_of("mixed"))
    assert bool((state["ones1"] == 1).all()) and bool((state["ones2"] == 1).all())
    assert RECIPE.per_entry("fresh", made.parameters["mixed"], {}) == {}


def test_rounding_never_keeps_counts_from_being_let_go() -> None:
    for beta in (0.0, 0.9, 0.95, 0.99, 0.995):
        weight = nn.Parameter(torch.zeros(2))
        sliced = SlicedAdamW([weight], 0.1, (0.9, beta), 1e-8)
        state = sliced.state[weight]
        state |= {key: torch.zeros(2) for key in ("exp_avg", "exp_avg_sq")}
        state |= {"ones1": torch.ones(2), "ones2": torch.tensor([0.3, 0.0])}
        for _ in range(2200):  # as a step does
            state["ones2"].mul_(beta).add_(1 - beta)
        sliced.settle(itself)
        assert "ones2" not in state, beta


@pytest.mark.parametrize("of_gradient", [torch.contiguous_format, torch.channels_last])
def test_tensors_that_lie_otherwise_in_memory_take_the_same_steps(
    of_gradient: torch.memory_format,
) -> None:
    """Fused kernels go through the memory of all of them alike."""
    torch.manual_seed(0)
    values, moments = torch.randn(4, 3, 2, 2), torch.rand(4, 3, 2, 2)
    found: list[Tensor] = []
    for form in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(values.clone(memory_format=form))
        made = RECIPE.build({"weight": weight}, frozenset({"weight"}))
        made.load("weight", {"exp_avg": moments.clone(), "exp_avg_sq": moments.clone()})
        for _ in range(3):
            weight.grad = values.clone(memory_format=of_gradient)
            made.step()
        found.append(weight.detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def counted(run: Run) -> int:
    states = [run.optimizer.state_of(name) for name in run.optimizer.parameters]
    return sum("ones1" in state for state in states)


SETTLING = (
    "growth=schedule",
    "optimizer=adamw",
    "optimizer.beta1=0.1",
    "optimizer.beta2=0.1",  # 7 steps
    "growth.start.width=0.25",
    "widen.factor=2",
    "growth.stages.deeper.at=2steps",
    "growth.stages.wider.at=4steps",
    "+growth.stages.again={_target_: progtrain.growth.schedule.At, at: 15steps,"
    " operator: '${widen}'}",
    "train.evaluate_every=6steps",
    "train.duration=24steps",
    "train.ema=0.9",
)


def test_a_run_lets_counts_go_at_an_evaluation_and_resumes_in_the_same_bits(
    tmp_path: Path,
) -> None:
    seen: dict[int, int] = {}

    def look(call: str, run: Run) -> None:
        if call == "stepped":
            seen[run.clock.step] = counted(run)

    made = parts(*SETTLING)
    every: Any = replace(made, checkpoint=Checkpoints("1steps", 1000))
    whole = train(every, tmp_path / "whole", Spy(look))
    told = {4: False, 5: True, 12: True, 13: False, 15: False, 16: True, 24: True}
    assert {step: seen[step] > 0 for step in told} == told
    assert not counted(whole.run)  # after the evaluation of the last step
    for step in (11, 12, 13, 16):
        again = resume(made, branch(whole.directory, step, tmp_path / f"from {step}"))
        assert not differences(whole, again), step
