"""Outputs and heads that join: what they change and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from growth_kit import CLASSES, a_host, a_machine, a_model, grow_now, make, one_thread, train  # noqa: F401
from torch import nn

from progtrain.errors import GrowthError
from progtrain.growth.add_head import Heads
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Host, grow
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.add_head import AddHead
from progtrain.growth.operators.add_outputs import AddOutputs
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.models.gpt import GPT
from progtrain.run import Probe

ADAMW = make("optimizer", "adamw")


@pytest.mark.parametrize("name", ["mlp_batch", "cnn", "user"])
def test_old_outputs_stay_exactly_and_new_ones_learn(name: str) -> None:
    host = a_host(name)
    before = evaluate(host.model, host.probe.x)
    after = evaluate(grow(host, AddOutputs(add=2), 1).model, host.probe.x)
    assert after.shape[-1] == CLASSES + 2
    torch.testing.assert_close(after[:, :CLASSES], before, rtol=0, atol=1e-14)
    machine = a_machine(a_model(name), ADAMW)
    train(machine, 2)
    event = grow_now(machine, AddOutputs(add=2))
    assert event.promised and event.preservation_error <= 1e-12
    head = machine.run.model.get_parameter("head.weight")
    at_once = head.detach().clone()
    train(machine, 2)
    assert bool((head.detach() != at_once)[CLASSES:].any())


def test_a_tied_head_has_no_outputs_to_add() -> None:
    torch.manual_seed(0)
    model = GPT((6,), 9, width=8, depth=1, heads=2, tied=True).double()
    x = torch.randint(9, (4, 6))
    with pytest.raises(GrowthError, match="tied head"):
        grow(Host(model, Probe(x, x)), AddOutputs(), 0)


def test_a_copied_head_answers_as_the_first_did_and_only_it_learns() -> None:
    machine = a_machine(a_model("mlp_batch"), ADAMW)
    train(machine, 2)
    event = grow_now(machine, AddHead(name="fine"))
    assert event.promised and event.preservation_error == 0
    heads = machine.run.model.get_submodule("head")
    assert isinstance(heads, Heads) and heads.answers == "fine"
    first = {n: t.detach().clone() for n, t in heads.heads["first"].named_parameters()}
    train(machine, 5)
    heads = machine.run.model.get_submodule("head")
    for name, tensor in heads.heads["first"].named_parameters():
        assert torch.equal(tensor, first[name]) and not tensor.requires_grad
        assert not torch.equal(tensor, heads.heads["fine"].get_parameter(name))


def test_the_first_head_keeps_answering_by_name_when_the_backbone_has_grown() -> None:
    """Growth sees what every head reads, so none is left with columns of yesterday."""
    host = a_host("mlp_batch")
    headed = Host(grow(host, AddHead(fresh=True), 1).model, host.probe)
    first, second = (_answer(headed.model, name, headed) for name in ("first", "second"))
    torch.testing.assert_close(first, evaluate(host.model, host.probe.x), rtol=0, atol=0)
    assert not torch.allclose(first, second)
    wider = grow(headed, WidenZero(), 2).model
    torch.testing.assert_close(_answer(wider, "first", headed), first, rtol=0, atol=1e-12)
    torch.testing.assert_close(_answer(wider, "second", headed), second, rtol=0, atol=1e-12)


def test_a_third_head_joins_the_two_and_a_name_is_used_once() -> None:
    host = a_host("cnn")
    two = grow(host, AddHead(name="second"), 1)
    three = grow(Host(two.model, host.probe), AddHead(name="third"), 2)
    heads = three.model.get_submodule("head")
    assert isinstance(heads, Heads)
    assert list(heads.heads) == ["first", "second", "third"] and heads.answers == "third"
    with pytest.raises(GrowthError, match="a head second already; heads: first, second"):
        grow(Host(two.model, host.probe), AddHead(name="second"), 2)


def test_heads_are_replayed_and_taken_out_again() -> None:
    host = a_host("mlp_none")
    grown = grow(host, AddHead(), 1)
    edit = Edit.from_json(grown.edit.to_json())
    again: nn.Module = a_model("mlp_none")
    edit.apply(again)
    assert repr(again) == repr(grown.model)
    assert again.state_dict().keys() == grown.model.state_dict().keys()
    assert edit.rename("head.weight") == "head.heads.first.weight"
    edit.revert(again)
    assert repr(again) == repr(host.model)
    assert all(parameter.requires_grad for parameter in again.parameters())


def _answer(model: nn.Module, name: str, host: Host) -> torch.Tensor:
    heads = model.get_submodule("head")
    assert isinstance(heads, Heads)
    before, heads.answers = heads.answers, name
    try:
        return evaluate(model, host.probe.x)
    finally:
        heads.answers = before


def test_a_fresh_head_promises_nothing_under_any_warmup() -> None:
    machine = a_machine(a_model("mlp_batch"), ADAMW, make("warmup", "zero_init"))
    train(machine, 2)
    event = grow_now(machine, AddHead(fresh=True))
    assert not event.promised and event.preservation_error > 0.1
    train(machine, 2)
