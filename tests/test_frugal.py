"""A growth runs and copies no more than it must: what is dear on large networks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from growth_kit import a_host, a_model, one_thread  # noqa: F401
from torch import Tensor, nn

from progtrain import flops
from progtrain.growth.grow import Host, grow
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.spaces import spaces
from progtrain.models.gpt import GPT
from progtrain.run import Probe


def batches_seen(model: nn.Module) -> list[int]:
    """Sizes of the batches that the model, or a copy of it, runs on."""
    seen: list[int] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(len(args[0]))

    model.register_forward_pre_hook(note)
    return seen


def test_a_trace_looks_at_two_samples_and_finds_the_same() -> None:
    model, x = a_model("cnn"), a_host("cnn").probe.x
    assert len(x) > 2
    two = spaces(model, x[:2])
    seen = batches_seen(model)
    assert spaces(model, x) == two
    assert seen == [2]


def test_only_batch_norms_cost_a_pass_over_the_probe_batch() -> None:
    for name, passes in (("mlp_batch", 1), ("mlp_layer", 0), ("mlp_none", 0)):
        host = a_host(name)
        seen = batches_seen(host.model)  # copied with the model
        grow(host, WidenZero(), 0)
        assert seen.count(len(host.probe.x)) == passes, name


def test_counting_flops_copies_no_weights_and_keeps_ties_and_the_network() -> None:
    torch.manual_seed(0)
    model = GPT((6,), 9, width=8, depth=1, heads=2, tied=True)
    model.get_parameter("norm.weight").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    empty = flops.on_meta(model)
    tensors = [*empty.named_parameters(), *empty.named_buffers()]
    assert all(tensor.is_meta for _, tensor in tensors)
    assert [n for n, _ in empty.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert not empty.get_parameter("norm.weight").requires_grad
    after: dict[str, Tensor] = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    x = torch.randint(9, (2, 6), device="meta")
    assert (
        flops.count_training(empty, x)
        == flops.count_training(copy.deepcopy(model).to("meta"), x)
        > 0
    )


def test_a_probe_of_one_sample_shows_the_same_spaces() -> None:
    host = a_host("cnn")
    one = Host(host.model, Probe(host.probe.x[:1], host.probe.y[:1]))
    assert [s.name for s in spaces(one.model, one.probe.x)] == [
        s.name for s in spaces(host.model, host.probe.x)
    ]
