"""Widening operators that look at the loss: GradMax, Firefly, LiGO."""

from __future__ import annotations

import copy

import pytest
import torch
from growth_kit import MODELS, a_host, make, one_thread  # noqa: F401
from torch import nn
from torch.nn import functional as F
from widen_kit import a_gpt, loss, new_units, slope_of, vectors

from progtrain.growth.grow import Grown, grow
from progtrain.growth.newborn import evaluate, widened
from progtrain.growth.operators.gradients import normal, of_model, slabs_of, write_rows
from progtrain.growth.operators.widen_firefly import Candidates, draw, pooled
from progtrain.growth.operators.widen_gradmax import orthogonal
from progtrain.growth.operators.widen_ligo import mixed
from progtrain.growth.operators.widen_zero import fill_silent
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Part, Role, WidenSpace
from progtrain.objective import cross_entropy

# gradmax


def test_gradmax_finds_the_singular_vectors_of_linear_layers() -> None:
    host = vectors(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 4, bias=False))
    operator = make("widen", "gradmax", size=9, iterations=200)
    grown = grow(host, operator, 3)
    assert not bool(new_units(grown, Role.PRODUCER).any())
    z = evaluate(host.model, host.probe.x).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(cross_entropy(z, host.probe.y), z)
    M = slope.T @ host.probe.x
    left, values, _ = torch.linalg.svd(M)
    columns = new_units(grown, Role.CONSUMER)
    old = host.model.get_parameter("2.weight").detach()
    norm = old.norm(dim=0).mean()
    torch.testing.assert_close(columns @ columns.T, norm**2 * torch.eye(3).double())
    inside = (columns / norm) @ left[:, :3]
    torch.testing.assert_close(inside @ inside.T, torch.eye(3).double(), atol=1e-6, rtol=0)
    reached = slope_of(grown, Role.PRODUCER).norm()
    torch.testing.assert_close(reached, norm * values[:3].norm())


SMOOTH = {
    "linear": lambda: vectors(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)),
    "relu": lambda: vectors(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)),
    "cnn": lambda: a_host("cnn"),
    "resnet": lambda: a_host("resnet"),
    "user": lambda: a_host("user"),
    "gated": lambda: a_gpt(mlp="swiglu"),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradmax_has_larger_gradients_than_random_units_of_its_norm(name: str) -> None:
    host = SMOOTH[name]()
    grown = grow(host, make("widen", "gradmax", factor=1.5), 3)
    for space, change in enumerate(widened(grown.edit)):
        if change.norm is not None:
            continue
        dead = not bool(new_units(grown, Role.CONSUMER, space).any())
        zero, chosen = (Role.CONSUMER, Role.PRODUCER) if dead else (Role.PRODUCER, Role.CONSUMER)
        reached = slope_of(grown, zero, space).norm()
        slabs = slabs_of(grown.model, change, chosen)
        best = of_model(grown.model, slabs)
        for seed in range(3):
            other = copy.deepcopy(grown)
            drawn = normal(best.shape, torch.Generator().manual_seed(seed))
            write_rows(other.model, slabs, best.norm(dim=1, keepdim=True) * orthogonal(drawn))
            assert reached > slope_of(other, zero, space).norm(), (change.space, seed)


def test_gradmax_makes_zero_what_can_learn_from_zero() -> None:
    """ReLU and batch norm: outgoing weights; tanh: incoming; of a gate or attention, one factor."""
    for name, side in (("relu", Role.CONSUMER), ("linear", Role.PRODUCER)):
        grown = grow(SMOOTH[name](), make("widen", "gradmax"), 3)
        other = Role.PRODUCER if side is Role.CONSUMER else Role.CONSUMER
        assert not bool(new_units(grown, side).any()) and bool(new_units(grown, other).any())
        assert bool((slope_of(grown, side).norm(dim=1) > 0).all())
    grown = grow(a_gpt(mlp="swiglu"), make("widen", "gradmax"), 3)
    zero = {
        slab.tensor.removeprefix("blocks.0.")
        for slab in grown.edit.slabs()
        if "norm" not in slab.tensor
        and slab.dim == 0
        and not slab.read(tensor_of(grown.model, slab.tensor)).any()
    }
    assert {"attention.v.weight"} == {name for name in zero if name[-8] in "qkv"}
    assert len(zero & {"mlp.up.weight", "mlp.gate.weight"}) == 1


def test_units_beyond_the_number_of_directions_are_no_copies() -> None:
    host = vectors(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    columns = new_units(grow(host, make("widen", "gradmax", size=16), 3), Role.CONSUMER)
    alike = F.normalize(columns, dim=1) @ F.normalize(columns, dim=1).T - torch.eye(10).double()
    assert float(alike.abs().max()) < 0.9999
    torch.testing.assert_close(columns.norm(dim=1), columns.norm(dim=1).mean().expand(10))


# firefly


def a_pool(steps: int, rounds: int = 4) -> tuple[Grown, Candidates]:
    host = SMOOTH["relu"]()
    grown = grow(host, make("widen", "zero"), 3)
    generator = torch.Generator().manual_seed(5)
    fill_silent(grown, generator)
    changes = widened(grown.edit)
    return grown, pooled([draw(grown, changes, steps, 0.1, generator) for _ in range(rounds)])[0]


def test_scores_are_what_the_loss_does_when_a_unit_is_read_a_little() -> None:
    grown, found = a_pool(steps=2, rounds=1)
    slabs = slabs_of(grown.model, widened(grown.edit)[0], Role.CONSUMER)
    for unit in range(len(found.score)):
        one = torch.zeros_like(found.outgoing)
        ends: list[float] = []
        for step in (1e-5, -1e-5):
            one[unit] = step * found.outgoing[unit]
            write_rows(grown.model, slabs, one)
            ends.append(loss(grown.model, grown.host))
        slope = (ends[0] - ends[1]) / 2e-5
        assert slope == pytest.approx(float(found.score[unit]), rel=1e-4, abs=1e-9)


def test_the_steepest_candidates_are_kept_and_turned_downhill() -> None:
    _, found = a_pool(steps=0)
    best = found.best(6)
    left = sorted(found.score.abs().tolist())[:-6]
    assert float(best.score.abs().min()) >= max(left)
    for score, way in zip(best.score, best.outgoing, strict=True):
        place = int((found.score == score).nonzero()[0])
        assert torch.equal(way, found.outgoing[place] * (-1 if score > 0 else 1))


def test_steps_make_candidates_steeper_at_constant_norms() -> None:
    (_, before), (_, after) = a_pool(steps=0, rounds=1), a_pool(steps=20, rounds=1)
    assert float(after.score.sum()) < -2 * float(before.score.abs().sum())
    for found in zip(before.parts, after.parts, strict=True):
        assert found[0].shape == found[1].shape
    torch.testing.assert_close(before.outgoing.norm(dim=1), after.outgoing.norm(dim=1))
    torch.testing.assert_close(*(f.parts[0].flatten(1).norm(dim=1) for f in (before, after)))


@pytest.mark.parametrize("name", ["mlp_none", "cnn", "user", "flat"])
def test_firefly_lowers_the_loss_also_from_too_large_an_epsilon(name: str) -> None:
    host = a_host(name)
    for epsilon in (0.01, 10.0):
        operator = make("widen", "firefly", epsilon=epsilon, steps=3, candidates=2)
        assert loss(grow(host, operator, 3).model, host) < loss(host.model, host)


# ligo


@pytest.mark.parametrize("name", sorted(MODELS))
def test_ligo_begins_with_equal_shares(name: str) -> None:
    grown = grow(a_host(name), make("widen", "ligo", steps=0, noise=0.0), 3)
    other = grow(a_host(name), make("widen", "duplicate", unevenness=0.0), 3)
    states = (grown.model.state_dict(), other.model.state_dict())
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], msg=key)


@pytest.mark.parametrize("name", ["mlp_batch", "resnet", "gpt"])
def test_ligo_lowers_the_loss_by_its_steps(name: str) -> None:
    host = a_gpt() if name == "gpt" else a_host(name)
    losses = [
        loss(grow(host, make("widen", "ligo", steps=steps), 3).model, host) for steps in (0, 5, 20)
    ]
    assert losses[2] < losses[1] < losses[0]


def test_mixing_leaves_entries_of_no_unit_alone() -> None:
    part = Part("w", 1, ("+", 2, ("*", "unit", 2)), Role.CONSUMER)
    change = WidenSpace("s", 3, 5, (part,))
    w, mix = torch.randn(4, 8).double(), torch.randn(5, 3).double()
    grown = mixed(w, change, part, mix)
    assert grown.shape == (4, 12) and torch.equal(grown[:, :2], w[:, :2])
    wanted = torch.einsum("nu,auk->ank", mix, w[:, 2:].unflatten(1, (3, 2))).flatten(1)
    torch.testing.assert_close(grown[:, 2:], wanted)
