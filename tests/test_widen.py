"""What each widening operator says of itself, beyond the laws that all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from growth_kit import (  # noqa: F401
    CONF,
    MODELS,
    a_host,
    a_probe,
    changed,
    lively,
    make,
    one_thread,
    options,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from widen_kit import a_gpt, new_units, slope_of, vectors

from progtrain.errors import SettingError
from progtrain.growth.grow import Host, grow
from progtrain.growth.newborn import evaluate, widened
from progtrain.growth.operators.widen_sparkling import fan_in_scale
from progtrain.growth.widen_space import Role
from progtrain.objective import cross_entropy

EXACT = 1e-12
LEARNED = ("gradmax", "firefly", "ligo")


@pytest.mark.parametrize("name", ["mlp_none", "cnn", "user", "gpt", "gpt layer tied"])
@pytest.mark.parametrize("option", options("widen"))
def test_what_an_operator_says_it_costs_is_what_it_costs(option: str, name: str) -> None:
    tied = {"norm": "layer", "positions": "learned", "tied": True}
    host = a_gpt(**tied if "tied" in name else {}) if name.startswith("gpt") else a_host(name)
    operator = make("widen", option, steps=3, iterations=3, candidates=2)
    with FlopCounterMode(display=False) as counter:
        grown = grow(host, operator, 3)
    passes = counter.get_total_flops() / _forward(host)
    if option in LEARNED:
        assert 0.7 * counter.get_total_flops() < operator.flops(grown)
        assert operator.flops(grown) < 1.5 * counter.get_total_flops()
    else:
        assert operator.flops(grown) == 0 and passes < 12, "looks at spaces and statistics only"


def _forward(host: Host) -> float:
    with FlopCounterMode(display=False) as counter:
        evaluate(host.model, host.probe.x)
    return counter.get_total_flops()


@pytest.mark.parametrize("option", ["gradmax", "firefly"])
def test_where_a_norm_leaves_no_choice_nothing_is_spent(option: str) -> None:
    host = a_host("mlp_layer")
    operator = make("widen", option)
    grown = grow(host, operator, 3)
    assert operator.flops(grown) == 0
    assert changed(host.model, grown.model, grown.x) <= EXACT


# paired


@pytest.mark.parametrize("name", ["mlp_none", "mlp_batch", "cnn", "user", "flat"])
def test_pairs_are_computed_alike_and_read_as_opposites(name: str) -> None:
    grown = grow(a_host(name), make("widen", "paired"), 3)
    for space in range(len(widened(grown.edit))):
        incoming = new_units(grown, Role.PRODUCER, space)
        outgoing = new_units(grown, Role.CONSUMER, space)
        assert torch.equal(incoming[0::2], incoming[1::2])
        assert torch.equal(outgoing[0::2], -outgoing[1::2])
        assert bool((incoming.norm(dim=1) > 0).all() and (outgoing.norm(dim=1) > 0).all())


def test_an_odd_unit_is_not_read() -> None:
    grown = grow(a_host("mlp_none"), make("widen", "paired", spaces="stem", size=11), 3)
    outgoing = new_units(grown, Role.CONSUMER)
    assert torch.equal(outgoing[0], -outgoing[1]) and not bool(outgoing[2].any())
    assert bool(new_units(grown, Role.PRODUCER)[2].any())


def test_the_scale_of_a_pair_is_that_of_its_outgoing_weights() -> None:
    wide, narrow = (
        new_units(grow(a_host("flat"), make("widen", "paired", scale=s), 3), Role.CONSUMER)
        for s in (1.0, 0.25)
    )
    torch.testing.assert_close(0.25 * wide, narrow)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_pair_parts_at_the_first_step_and_both_sides_learn(
    optimizer: Callable[..., torch.optim.Optimizer],
) -> None:
    grown = grow(a_host("mlp_none"), make("widen", "paired", spaces="stem"), 3)
    before = new_units(grown, Role.PRODUCER)
    slope = slope_of(grown, Role.PRODUCER)
    torch.testing.assert_close(slope[0::2], -slope[1::2])
    steps = optimizer(grown.model.parameters(), lr=0.01)
    cross_entropy(grown.model(grown.x), grown.host.probe.y).backward()
    steps.step()
    after = new_units(grown, Role.PRODUCER)
    moved = (after - before).norm(dim=1)
    active = slope.norm(dim=1) > 0  # a unit that is off for the whole batch has no slope
    assert active.sum() >= 6
    assert bool((moved[active] > 1e-6).all())
    assert bool(((after[0::2] - after[1::2]).norm(dim=1)[active[0::2]] > 1e-6).all())


# duplicate


class Grouped(nn.Module):
    """A grouped and a depthwise convolution with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.group = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.one(self.stem(x)))
        h = F.gelu(self.two(self.depth(self.group(h))))
        return self.head(h.mean((2, 3)))


GPTS: dict[str, dict[str, object]] = {
    "rms": {},
    "layer, tied": {"norm": "layer", "positions": "learned", "tied": True},
    "rms, tied": {"tied": True},
    "groups, gated": {"heads": 4, "kv_heads": 2, "mlp": "swiglu"},
    "narrow heads": {"head_size": 6, "positions": "learned"},
}


@pytest.mark.parametrize("spaces", ["*", "*:*", "*|*:*"])
@pytest.mark.parametrize("settings", GPTS.values(), ids=GPTS)
@pytest.mark.parametrize("option", ["duplicate", "paired", "gradmax", "zero", "sparkling"])
def test_decoders_grow_exactly_in_every_width(
    option: str, settings: dict[str, object], spaces: str
) -> None:
    host = a_gpt(**settings)
    for factor in (2.0, 3.0) if option in ("duplicate", "sparkling") else (1.5, 2.0):
        grown = grow(host, make("widen", option, spaces=spaces, factor=factor, iterations=2), 3)
        assert not grown.edit.inexact
        assert changed(host.model, grown.model, grown.x) <= 1e-12


@pytest.mark.parametrize("factor", [1.25, 2.0, 3.0])
@pytest.mark.parametrize("option", ["duplicate", "paired", "gradmax", "zero"])
def test_grouped_convolutions_grow_exactly(option: str, factor: float) -> None:
    torch.manual_seed(0)
    host = Host(lively(Grouped()), a_probe())
    grown = grow(host, make("widen", option, spaces="*|*:*", factor=factor, iterations=2), 3)
    assert changed(host.model, grown.model, grown.x) <= EXACT
    assert changed(host.model, grown.model, grown.x, training=True) <= EXACT


@pytest.mark.parametrize("unevenness", [0.0, 0.5])
def test_noise_on_shares_cancels_and_parts_copies(unevenness: float) -> None:
    host = a_host("mlp_none")
    operator = make("widen", "duplicate", spaces="stem", factor=3.0, unevenness=unevenness)
    grown = grow(host, operator, 3)
    weight, old = (m.get_parameter("blocks.0.linear.weight") for m in (grown.model, host.model))
    thirds = weight.detach().unflatten(1, (3, 8))
    torch.testing.assert_close(thirds.sum(1), old.detach())
    assert torch.allclose(thirds, old[:, None] / 3) == (unevenness == 0)


# sparkling


def test_the_scale_of_columns_is_the_papers() -> None:
    assert fan_in_scale(8, 16, copies=True) == 0.5
    assert fan_in_scale(8, 24, copies=True) == pytest.approx(1 / 3)
    assert fan_in_scale(8, 12, copies=True) == pytest.approx((8 / 20) ** 0.5)
    assert fan_in_scale(8, 12, copies=False) == pytest.approx((8 / 12) ** 0.5)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("columns", ["copy", "random"])
@pytest.mark.parametrize("rows_by", ["copy", "random"])
def test_sparkling_keeps_the_size_of_activations(rows_by: str, columns: str, factor: float) -> None:
    sizes = (64, 192, 192, 96)
    linears = [nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)]
    host = vectors(
        linears[0], nn.Tanh(), linears[1], nn.Tanh(), linears[2], features=64, samples=64
    )
    operator = make("widen", "sparkling", factor=factor, rows=rows_by, columns=columns)
    grown = grow(host, operator, 3)
    for layer in ("0", "2", "4"):
        before, after = (_size_of(m, layer, host) for m in (host.model, grown.model))
        assert after == pytest.approx(before, rel=0.1)
    exact = changed(host.model, grown.model, grown.x) <= EXACT
    assert exact == (rows_by == columns == "copy" and factor % 1 == 0)


def _size_of(model: nn.Module, layer: str, host: Host) -> float:
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: seen.append(out))
    evaluate(model, host.probe.x)
    handle.remove()
    return float(seen[0].pow(2).mean().sqrt())


# settings


@pytest.mark.parametrize(
    ("option", "setting", "value"),
    [
        ("paired", "scale", 0.0),
        ("gradmax", "scale", -1.0),
        ("gradmax", "iterations", 0),
        ("firefly", "candidates", 0),
        ("firefly", "steps", -1),
        ("firefly", "lr", 0.0),
        ("firefly", "epsilon", 11.0),
        ("sparkling", "rows", "mean"),
        ("sparkling", "columns", "zero"),
        ("ligo", "steps", -1),
        ("ligo", "lr", 2.0),
        ("ligo", "noise", float("nan")),
        ("duplicate", "unevenness", 1.0),
    ],
)
def test_settings_that_make_no_sense_are_refused(option: str, setting: str, value: object) -> None:
    with pytest.raises(SettingError, match=f"{setting} must be"):
        make("widen", option, **{setting: value})
