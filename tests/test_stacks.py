"""Depth in any network: which blocks are a stack, what they are called, how they fall silent."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from growth_kit import (
    ByHand,
    a_machine,
    changed,
    grow_now,
    lively,
    make,
    one_thread,  # noqa: F401
    train,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from progtrain.errors import GrowthError
from progtrain.growth.branches import branch_ends
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Host, grow
from progtrain.growth.identity import make_identity
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.newborn import evaluate, input_of
from progtrain.growth.operators.deepen_identity import DeepenIdentity
from progtrain.growth.operators.deepen_interleave_half import DeepenInterleaveHalf
from progtrain.growth.stacks import stacks
from progtrain.run import Probe

WIDTH, CLASSES = 4, 3


class Branch(nn.Module):
    """x + end(body(x)) · scale."""

    def __init__(self, end: nn.Module, scaled: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.body, self.end = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), end
        self.scale = nn.Parameter(torch.ones(WIDTH, 1, 1)) if scaled else None
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.end(F.gelu(self.body(x_BCHW)))
        return x_BCHW + self.drop(h_BCHW if self.scale is None else h_BCHW * self.scale)


class Gated(nn.Module):
    """Squeeze and excitation: the gate is no end, what it gates is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.conv(x_BCHW)
        return F.relu(x_BCHW + h_BCHW * self.gate(h_BCHW.mean((2, 3), keepdim=True)).sigmoid())


class Windows(nn.Module):
    """Attention over rows behind a shift, then a layer, both with their norm in front or behind."""

    def __init__(self, post: bool = False) -> None:
        super().__init__()
        self.post, self.norms = post, nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Linear(8, WIDTH), nn.Dropout())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        rows_NWC = x_BCHW.permute(0, 2, 3, 1).flatten(0, 1)
        for norm, part in zip(self.norms, (self._attend, self.mlp), strict=True):
            rows_NWC = rows_NWC + (norm(part(rows_NWC)) if self.post else part(norm(rows_NWC)))
        return rows_NWC.unflatten(0, (-1, x_BCHW.shape[2])).permute(0, 3, 1, 2)

    def _attend(self, rows_NWC: Tensor) -> Tensor:
        shifted_NWC = torch.roll(rows_NWC, 1, 1)
        return torch.roll(self.attention(shifted_NWC, shifted_NWC, shifted_NWC)[0], -1, 1)


class Modulated(nn.Module):
    """x · f(x): nothing at zero makes it x."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.second(F.gelu(self.first(x_BCHW)))


def images(channels: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(6, channels, 5, 5, generator=generator, dtype=torch.float64).relu()


CONV, BOTH = nn.Conv2d, {"end.weight", "end.bias"}
BLOCKS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "convolution": (lambda: Branch(CONV(WIDTH, WIDTH, 1)), BOTH),
    "batch norm": (lambda: Branch(nn.BatchNorm2d(WIDTH)), BOTH),
    "stochastic depth": (lambda: Branch(nn.BatchNorm2d(WIDTH), drop=0.5), BOTH),
    "group norm": (lambda: Branch(nn.GroupNorm(2, WIDTH)), BOTH),
    "layer scale": (lambda: Branch(CONV(WIDTH, WIDTH, 1), scaled=True), {"scale"}),
    "gate": (Gated, {"conv.weight", "conv.bias"}),
    "windows": (
        Windows,
        {f"{end}.{kind}" for end in ("attention.out_proj", "mlp.2") for kind in ("weight", "bias")},
    ),
    "norm behind": (
        lambda: Windows(post=True),
        {f"norms.{i}.{kind}" for i in range(2) for kind in ("weight", "bias")},
    ),
}


def a_block(name: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(BLOCKS[name][0]())


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_ends_of_branches_are_the_last_parameters_that_can_silence_them(name: str) -> None:
    block = a_block(name)
    ends = {id(end) for end in branch_ends(block, images())}
    assert {n for n, p in block.named_parameters() if id(p) in ends} == BLOCKS[name][1]


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_a_residual_block_becomes_the_identity_and_all_of_it_can_learn(name: str) -> None:
    block, x_BCHW = a_block(name), images()
    assert float((evaluate(block, x_BCHW) - x_BCHW).abs().max()) > 1e-2
    make_identity(block, x_BCHW)
    assert torch.equal(evaluate(block, x_BCHW), x_BCHW)
    optimizer = torch.optim.SGD(block.parameters(), lr=1e-4)
    for _ in range(2):  # what is in front of an end has a gradient once the end has moved
        optimizer.zero_grad()
        (block.eval()(x_BCHW) ** 2 * torch.linspace(1, 2, 5).double()).sum().backward()
        optimizer.step()
    still = [n for n, p in block.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_looking_for_ends_changes_neither_the_block_nor_its_input() -> None:
    block = lively(nn.Sequential(nn.ReLU(inplace=True), Branch(nn.Conv2d(WIDTH, WIDTH, 1))))
    before, x_BCHW = {n: p.clone() for n, p in block.named_parameters()}, images() - 1
    kept_BCHW = x_BCHW.clone()
    branch_ends(block, x_BCHW)
    assert torch.equal(x_BCHW, kept_BCHW)
    assert all(torch.equal(before[n], p) for n, p in block.named_parameters())


def test_a_block_that_multiplies_its_input_is_refused() -> None:
    assert branch_ends(lively(Modulated()), images()) == []
    with pytest.raises(GrowthError, match="Modulated cannot be made the identity"):
        make_identity(Modulated().double(), images())


class Conv(nn.Sequential):
    """Convolution, norm, activation."""

    def __init__(self, inputs: int = WIDTH, outputs: int = WIDTH, kernel: int = 3) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Stage(nn.Module):
    """Blocks of its own."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Branch(nn.Conv2d(WIDTH, WIDTH, 1)) for _ in range(depth)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.blocks(x_BCHW)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([Conv(), Conv()], [("0", 0, 2)]),
        ([Conv()], [("0", 0, 1)]),
        ([Conv(8), Conv()], [("0", 1, 1)]),  # the first changes the shape
        ([Conv(8), nn.Identity(), Conv()], []),  # of unlike layers
        ([Conv(8), Conv(), Gated()], []),
        ([Conv(8), Conv(), Conv(kernel=1)], []),
        ([Conv(8), Conv(), Conv(), Gated()], [("0", 1, 2)]),
        ([Stage()], [("0.0.blocks", 0, 2)]),  # the stage's blocks, not the stage
        ([Stage(), Stage()], [("0", 0, 2)]),
        ([nn.Sequential(OrderedDict(a=Conv(8), b=Conv()))], [("0.0", 1, 1)]),
        ([nn.Sequential(OrderedDict([("1", Conv()), ("a", Conv())]))], []),
    ],
)
def test_a_block_alone_is_a_stack_only_among_its_like(
    layers: list[nn.Module], expected: list[tuple[str, int, int]]
) -> None:
    model = nn.Sequential(nn.Sequential(*layers), nn.Flatten())
    first = next(p for p in model.parameters() if p.ndim > 1)
    seen = stacks(model.double(), torch.randn(2, first.shape[1], 5, 5).double())
    assert [(s.name, s.first, s.length) for s in seen] == expected


class Named(nn.Module):
    """A stem, blocks that have names, a head."""

    def __init__(self, names: tuple[str, ...] = ("block-1", "block-2")) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTH, 1)
        blocks = [(name, Branch(nn.BatchNorm2d(WIDTH))) for name in names]
        self.blocks = nn.Sequential(OrderedDict[str, nn.Module](blocks))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x_BCHW)).mean((2, 3)))


def named(*names: str) -> Named:
    torch.manual_seed(0)
    model = lively(Named(names) if names else Named())
    assert isinstance(model, Named)
    return model


def order(model: nn.Module) -> list[str]:
    return [name for name, _ in model.get_submodule("blocks").named_children()]


def host(model: nn.Module) -> Host:
    return Host(model, Probe(images(1), torch.arange(6) % CLASSES))


@pytest.mark.parametrize(
    ("names", "at", "source", "expected"),
    [
        (("block-1", "block-2"), 2, 0, ["block-1", "block-2", "block-3"]),
        (("block-1", "block-2"), 1, 0, ["block-1", "block-3", "block-2"]),
        (("a", "b"), 1, 0, ["a", "a1", "b"]),
        (("x9", "x2", "y"), 0, 1, ["x10", "x9", "x2", "y"]),
        (("0", "1"), 1, 0, ["0", "1", "2"]),
    ],
)
def test_a_new_block_keeps_the_order_and_takes_a_free_name(
    names: tuple[str, ...], at: int, source: int, expected: list[str]
) -> None:
    model = named(*names)
    blocks, before = list(model.blocks), model.state_dict()
    edit = grow(host(model), ByHand(Edit((InsertBlock("blocks", at, source),))), 0).edit
    edit.apply(model)
    assert order(model) == expected
    assert [b for i, b in enumerate(model.blocks) if i != at] == blocks
    assert model.get_submodule(edit.blocks()[0]) is model.blocks[at]
    now = model.state_dict()
    assert all(torch.equal(now[edit.rename(name)], tensor) for name, tensor in before.items())
    edit.revert(model)
    assert order(model) == list(names) and list(model.blocks) == blocks


def test_several_blocks_join_a_stack_with_names_and_come_back_from_a_file() -> None:
    grown = grow(host(named()), DeepenIdentity(add=3), 0)
    assert grown.edit.blocks() == ("blocks.block-3", "blocks.block-4", "blocks.block-5")
    assert changed(grown.host.model, grown.model, grown.x) == 0
    replayed = named()
    Edit.from_json(json.loads(json.dumps(grown.edit.to_json()))).apply(replayed)
    assert list(replayed.state_dict()) == list(grown.model.state_dict())
    Edit.from_json(grown.edit.to_json()).revert(replayed)
    assert list(replayed.state_dict()) == list(named().state_dict())


def test_blocks_with_names_keep_their_optimizer_state_and_new_ones_begin_without() -> None:
    machine = a_machine(named(), make("optimizer", "adamw"))
    train(machine, 2)
    old = {n: dict(machine.run.optimizer.state_of(n)) for n in machine.run.optimizer.parameters}
    event = grow_now(machine, ByHand(Edit((InsertBlock("blocks", 1, 0),))))
    assert event.blocks == ("blocks.block-3",)
    optimizer = machine.run.optimizer
    assert optimizer.state_of("blocks.block-3.body.weight") == {}
    for name, state in old.items():
        carried = optimizer.state_of(name)
        assert state and all(torch.equal(carried[key], state[key]) for key in state)
    train(machine, 2)
    assert optimizer.state_of("blocks.block-3.body.weight")


class Fixed(Named):
    """Calls its blocks by index, whatever joins."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.blocks[1](self.blocks[0](self.stem(x_BCHW))).mean((2, 3)))


def test_a_block_that_the_code_never_calls_is_refused() -> None:
    model = lively(Fixed())
    with pytest.raises(GrowthError, match=r"Branch is never called.*deepen\.stacks"):
        grow(host(model), DeepenIdentity(), 0)
    assert input_of(model, model.blocks[1], images(1)).x.shape == images().shape


class Parts(nn.Module):
    """Convolutions in a list, called as `kind` says."""

    def __init__(self, kind: str, count: int) -> None:
        super().__init__()
        self.kind = kind
        self.convs = nn.ModuleList(Conv() for _ in range(count))
        self.join = nn.Conv2d(WIDTH * (count + 1), WIDTH, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.kind == "beside":
            return x_BCHW + sum(conv(x_BCHW) for conv in self.convs)
        found = [x_BCHW]
        for conv in self.convs:
            found.append(conv(found[-1]))
        return self.join(torch.cat(found, 1)) if self.kind == "dense" else found[-1]


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("behind", 1, [("1.convs", 0, 1)]),
        ("behind", 2, [("1.convs", 0, 2)]),
        ("beside", 1, []),
        ("beside", 2, []),
        ("dense", 1, []),  # the joint counts them
        ("dense", 2, []),
    ],
)
def test_a_list_is_a_stack_where_its_blocks_read_each_other_and_one_more_fits(
    kind: str, count: int, expected: list[tuple[str, int, int]]
) -> None:
    model = nn.Sequential(nn.Identity(), Parts(kind, count)).double()
    before = list(model.state_dict())
    found = stacks(model, images())
    assert [(s.name, s.first, s.length) for s in found] == expected
    assert (
        list(model.state_dict()) == before
        and len(list(model.get_submodule("1.convs").children())) == count
    )


class Alternating(nn.Module):
    """A stage whose blocks are of one type but not equal; some begin with a convolution."""

    def __init__(self, begins: bool) -> None:
        super().__init__()
        self.begin = Conv() if begins else nn.Identity()
        self.blocks = nn.Sequential(*(Branch(nn.BatchNorm2d(WIDTH), i == 0) for i in range(2)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.blocks(self.begin(x_BCHW))


def test_a_stage_is_no_block_though_its_own_blocks_differ() -> None:
    model = nn.Sequential(Alternating(False), Alternating(True)).double()
    assert "" not in [s.name for s in stacks(model, images())]


class Told(Branch):
    """A block that is told the size of the image, once by place and once by name."""

    def forward(self, x_BCHW: Tensor, size: tuple[int, int], *, scale: Tensor) -> Tensor:
        assert x_BCHW.shape[2:] == size
        return super().forward(x_BCHW) * scale


class Telling(Named):
    """Passes more than its input to its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Told(nn.BatchNorm2d(WIDTH)) for _ in range(2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(x_BCHW)
        for block in self.blocks:
            x_BCHW = block(x_BCHW, tuple(x_BCHW.shape[2:]), scale=torch.ones(()))
        return self.head(x_BCHW.mean((2, 3)))


@pytest.mark.parametrize("operator", [DeepenIdentity(), DeepenInterleaveHalf(add=2)])
def test_a_block_is_run_alone_with_all_that_its_caller_passes(
    operator: DeepenIdentity | DeepenInterleaveHalf,
) -> None:
    torch.manual_seed(0)
    grown = grow(host(lively(Telling())), operator, 0)
    assert len(grown.edit.blocks()) == operator.add
    assert operator.shares or changed(grown.host.model, grown.model, grown.x) == 0
