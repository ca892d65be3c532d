"""What can grow: spaces and stacks that one forward pass finds, and the reasons where none does."""

from __future__ import annotations

import pytest
import torch
from growth_kit import CLASSES, a_host, a_probe, an_event, changed, old_part, one_thread  # noqa: F401
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.growth.controls import Controls
from progtrain.growth.grow import Host, grow
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.spaces import Space, spaces
from progtrain.growth.stacks import stacks
from progtrain.growth.widen_space import Norm, Role
from progtrain.warmups.linear_ramp import LinearRamp

OUTPUT = "it is the model's output"
FEATURES = 5


def found(host: Host) -> dict[str, Space]:
    seen = spaces(host.model, host.probe.x)
    by_name = {space.name: space for space in seen}
    assert len(by_name) == len(seen), "two spaces have one name"
    return by_name


def parts(space: Space) -> set[tuple[str, int, Role]]:
    return {(part.tensor, part.dim, part.role) for part in space.parts}


def sizes(host: Host) -> dict[str, int]:
    return {name: space.size for name, space in found(host).items() if not space.fixed}


def vectors(model: nn.Module) -> Host:
    """A host that reads vectors of five features."""
    return Host(model.double(), a_probe(12, (FEATURES,)))


def normed(prefix: str, running: bool) -> set[tuple[str, int, Role]]:
    both = {(f"{prefix}.weight", 0, Role.GAIN), (f"{prefix}.bias", 0, Role.SHIFT)}
    statistics = {
        (f"{prefix}.running_mean", 0, Role.MEAN),
        (f"{prefix}.running_var", 0, Role.VARIANCE),
    }
    return both | statistics if running else both


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_every_hidden_width_of_an_mlp_is_a_space_with_its_norm(norm: str) -> None:
    seen = found(a_host(f"mlp_{norm}"))
    assert list(seen) == ["stem", "blocks.0.linear", "blocks.1.linear", "head"]
    assert [space.size for space in seen.values()] == [8, 8, 8, 3]
    assert [space.fixed for space in seen.values()] == ["", "", "", OUTPUT]
    extra = {"none": set(), "batch": normed("norm", True), "layer": normed("norm", False)}
    assert parts(seen["stem"]) == extra[norm] | {
        ("stem.weight", 0, Role.PRODUCER),
        ("stem.bias", 0, Role.PRODUCER),
        ("blocks.0.linear.weight", 1, Role.CONSUMER),
    }
    kinds = [(use.kind, use.module) for use in seen["stem"].norms]
    assert kinds == ([(Norm.LAYER, "norm.weight")] if norm == "layer" else [])
    assert not any(space.inexact for space in seen.values())


def test_every_layer_of_a_plain_cnn_is_a_space_of_its_own() -> None:
    host = a_host("cnn")
    assert sizes(host) == {
        "stages.0.entry.conv": 8,
        "stages.0.blocks.0.conv": 8,
        "stages.1.entry.conv": 16,
        "stages.1.blocks.0.conv": 16,
    }
    assert parts(found(host)["stages.1.blocks.0.conv"]) == normed(
        "stages.1.blocks.0.norm", True
    ) | {
        ("stages.1.blocks.0.conv.weight", 0, Role.PRODUCER),
        ("head.weight", 1, Role.CONSUMER),
    }


def test_additions_unite_a_residual_stream_into_one_space() -> None:
    host = a_host("resnet", depth=2)
    stream = found(host)["stages.0.entry.conv"]
    assert {part.tensor for part in stream.tensors(Role.PRODUCER)} == {
        "stages.0.entry.conv.weight",
        "stages.0.blocks.0.conv.weight",
        "stages.0.blocks.1.conv.weight",
    }
    assert {part.tensor for part in stream.tensors(Role.CONSUMER)} == {
        "stages.0.blocks.0.first.conv.weight",
        "stages.0.blocks.1.first.conv.weight",
        "stages.1.entry.conv.weight",
    }
    inner = [f"stages.{s}.blocks.{b}.first.conv" for s in (0, 1) for b in (0, 1)]
    assert set(sizes(host)) == {"stages.0.entry.conv", "stages.1.entry.conv", *inner}


def test_every_channel_owns_height_times_width_columns_behind_a_flatten() -> None:
    reader = found(a_host("flat"))["conv"].tensors(Role.CONSUMER)
    expected = [("hidden.weight", 1, ("*", "unit", 16))]
    assert [(p.tensor, p.dim, p.layout) for p in reader] == expected


def test_a_depthwise_convolution_joins_the_space_that_it_reads() -> None:
    seen = found(a_host("user"))
    assert list(seen) == ["stem", "mixers.0.expand", "head"]
    assert ("mixers.0.depth.weight", 0, Role.PRODUCER) in parts(seen["mixers.0.expand"])
    assert ("mixers.0.depth.bias", 0, Role.PRODUCER) in parts(seen["mixers.0.expand"])
    assert ("mixers.0.out.weight", 0, Role.PRODUCER) in parts(seen["stem"])
    assert ("head.weight", 1, Role.CONSUMER) in parts(seen["stem"])


def test_looking_changes_nothing_of_the_network() -> None:
    host = a_host("cnn")
    before = {name: tensor.clone() for name, tensor in host.model.state_dict().items()}
    host.model.train()
    host.model.get_submodule("stages.1").eval()
    modes = [module.training for module in host.model.modules()]
    spaces(host.model, host.probe.x), stacks(host.model, host.probe.x)
    assert modes == [module.training for module in host.model.modules()]
    after = host.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp_batch", [("blocks", 0, 2)]),
        ("cnn", [("stages.0.blocks", 0, 1), ("stages.1.blocks", 0, 1)]),
        ("resnet", [("stages.0.blocks", 0, 1), ("stages.1.blocks", 0, 1)]),
        ("user", [("mixers", 0, 1)]),
        ("flat", []),
    ],
)
def test_stacks_are_runs_of_equal_blocks(name: str, expected: list[tuple[str, int, int]]) -> None:
    host = a_host(name)
    seen = stacks(host.model, host.probe.x)
    assert [(stack.name, stack.first, stack.length) for stack in seen] == expected


def test_the_longest_run_of_equal_blocks_is_the_stack() -> None:
    def block(inner: int) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, inner), nn.Tanh(), nn.Linear(inner, FEATURES))

    host = vectors(nn.Sequential(block(3), block(4), block(4), block(4), nn.Linear(FEATURES, 3)))
    stack = stacks(host.model, host.probe.x)
    assert [(s.name, s.first, s.length) for s in stack] == [("", 1, 3)]


class Net(nn.Module):
    """Two layers and whatever `between` does to the hidden vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES)
        self.bias = nn.Parameter(torch.zeros(4))
        self.narrow = nn.Linear(FEATURES, 4)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return h

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.first(x), x))


class Unknown(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.softmax(h, 1)


class Concatenated(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.cat([h[:, :2], h[:, 2:]], 1)


class Direct(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return torch.relu(h + self.bias)


class Input(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return h + x[:, :4]


class BareNorm(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return F.layer_norm(h, (4,))


class Summed(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return h * h.mean(1, keepdim=True)


class Joined(Net):
    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return h + torch.cat([self.narrow(x), h], 1)[:, :4]


class GroupedSequence(Net):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv1d(4, 4, 1, groups=2)

    def between(self, h: Tensor, x: Tensor) -> Tensor:
        return self.grouped(h.unsqueeze(-1)).flatten(1)


class GroupedImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1, groups=2)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(self.first(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Unknown, "softmax() mixes its entries"),
        (Concatenated, "a slice takes some of its entries"),
        (Joined, "a slice takes some of its entries"),
        (Input, "add() joins it to something of fixed size"),
        (BareNorm, "layer_norm in its code wants 4 where 5 would be needed"),
    ],
)
def test_what_cannot_grow_says_why(model: type[Net], reason: str) -> None:
    seen = found(vectors(model()))
    assert seen["first"].fixed == reason
    assert seen["head"].fixed == OUTPUT


def test_a_parameter_that_is_added_to_a_space_belongs_to_it() -> None:
    host = vectors(Direct())
    assert ("bias", 0, Role.PRODUCER) in parts(found(host)["first"])
    assert_grows_exactly(host)


def test_a_mean_over_a_space_lets_it_grow_by_even_copies_alone() -> None:
    host = vectors(Summed())
    assert found(host)["first"].inexact == "its code takes a mean over it"
    for operator, exact in ((WidenDuplicate(factor=2), True), (WidenZero(), False)):
        grown = grow(host, operator, seed=0)
        missed = changed(host.model, grown.model, host.probe.x)
        assert (missed <= 1e-12) is exact, (operator, missed)


@pytest.mark.parametrize("host", [GroupedSequence, GroupedImage])
def test_a_grouped_convolution_grows_by_groups_and_by_channels_of_a_group(
    host: type[nn.Module],
) -> None:
    torch.manual_seed(0)
    image = host is GroupedImage
    grouped = Host(host().double(), a_probe()) if image else vectors(host())
    assert sizes(grouped) == {"first:groups": 2, "first:part1": 2, "grouped:part1": 2}
    for name, groups, channels in (
        ("first:groups", 4, (8, 8)),
        ("first:part1", 2, (8, 4)),
        ("grouped:part1", 2, (4, 8)),
    ):
        grown = grow(grouped, WidenDuplicate(spaces=name, factor=2), seed=0).model
        layer = grown.get_submodule("grouped")
        assert (layer.groups, (layer.in_channels, layer.out_channels)) == (groups, channels)
        assert changed(grouped.model, grown, grouped.probe.x) <= 1e-12, name


def test_weights_held_by_no_layer_are_spaces_under_their_own_names() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.randn(4, FEATURES))
            self.down = nn.Parameter(torch.randn(6, 4))
            self.out = nn.Parameter(torch.randn(CLASSES, 6))

        def forward(self, x: Tensor) -> Tensor:
            h = F.gelu(F.linear(F.silu(F.linear(x, self.up)), self.down))
            return F.linear(h, self.out)

    host = vectors(Functional())
    assert sizes(host) == {"up": 4, "down": 6}
    assert_grows_exactly(host)


def test_a_shared_module_unites_what_it_reads_and_what_it_makes() -> None:
    class Twice(Net):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(4, 4)

        def between(self, h: Tensor, x: Tensor) -> Tensor:
            return self.again(torch.tanh(self.again(h)))

    host = vectors(Twice())
    assert sizes(host) == {"first": 4}
    assert_grows_exactly(host)


def test_tied_weights_grow_together_and_stay_tied() -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def between(self, h: Tensor, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(h)))

    host = vectors(Tied())
    assert ("b.bias", 0, Role.PRODUCER) in parts(found(host)["first"])
    grown = assert_grows_exactly(host)
    assert grown.a.weight is grown.b.weight


@pytest.mark.parametrize("raw_first", [True, False])
def test_a_weight_that_also_reads_the_input_cannot_grow(raw_first: bool) -> None:
    class Both(Net):
        def __init__(self) -> None:
            super().__init__()
            self.square = nn.Linear(FEATURES, FEATURES)
            self.head = nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            if raw_first:
                return self.head(self.square(torch.tanh(self.square(x))))
            h = self.square(torch.tanh(self.narrowed(x)))
            return self.head(h + self.square(x))

        def narrowed(self, x: Tensor) -> Tensor:
            return F.linear(x, self.wide)

    model = Both()
    model.wide = nn.Parameter(torch.randn(FEATURES, FEATURES))
    seen = found(vectors(model))
    name = "square" if raw_first else "wide"
    reason = "square.weight has a fixed size"
    assert seen[name].fixed == reason


def assert_grows_exactly(host: Host) -> nn.Module:
    """By every exact operator, and by a random one behind closed gates; one of the networks."""
    for operator in (WidenDuplicate(factor=1.5), WidenRandom(), WidenZero()):
        grown = grow(host, operator, seed=0)
        if isinstance(operator, WidenRandom):
            Controls(grown.model, [an_event(grown.edit)], LinearRamp())
        assert changed(host.model, grown.model, host.probe.x) <= 1e-12
    for name, old in host.model.state_dict().items():
        assert torch.equal(old_part(grown.model.state_dict()[name], old), old)
    return grown.model
