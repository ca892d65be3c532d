"""What the rules of single functions say about the widths that pass through them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.growth.axes import Axes, Fixed
from progtrain.growth.grow import Host, grow
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.spaces import spaces
from progtrain.run import Probe


class Packed(nn.Module):
    """Attention whose queries, keys and values are sliced out of one projection."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.width, self.heads = by, 8, 2
        self.stem, self.qkv, self.head = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x_BTF: Tensor) -> Tensor:
        bias = self.qkv.bias.clone()
        part = bias.numel() // 3 if self.by == "numel" else self.width
        bias[part : 2 * part].zero_()
        packed_BTC = F.linear(self.stem(x_BTF), self.qkv.weight, bias)
        q_BHTD, k_BHTD, v_BHTD = (
            each_BTC.unflatten(2, (self.heads, part // self.heads)).transpose(1, 2)
            for each_BTC in (
                packed_BTC[:, :, :part],
                packed_BTC[:, :, part : 2 * part],
                packed_BTC[:, :, 2 * part :],
            )
        )
        mixed_BHTD = torch.softmax(q_BHTD @ k_BHTD.transpose(2, 3), 3) @ v_BHTD
        return self.head(mixed_BHTD.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("by", ["numel", "attribute"])
def test_a_packed_projection_that_is_sliced_grows_in_all_its_parts(by: str) -> None:
    torch.manual_seed(0)
    model, x_BTF = Packed(by).double(), torch.randn(6, 4, 5, dtype=torch.float64)
    growable = {s.name for s in spaces(model, x_BTF) if not s.fixed}
    assert growable == {"stem", "qkv:heads"}
    host = Host(model, Probe(x_BTF, torch.arange(6) % 3))
    grown = grow(host, WidenDuplicate("qkv:heads", 2.0), 0).model
    assert grown.get_submodule("qkv").weight.shape == (48, 8)
    assert (grown.heads, grown.width) == (4, 16 if by == "attribute" else 8)
    assert float((evaluate(grown, x_BTF) - evaluate(model, x_BTF)).abs().max()) < 1e-12


class Ghost(nn.Module):
    """Two layers of one width side by side, cut to a width that the module holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.width = nn.Linear(5, 4), nn.Linear(5, 4), 8
        self.head = nn.Linear(8, 3)

    def forward(self, x_BF: Tensor) -> Tensor:
        both_BC = torch.cat([self.first(x_BF), self.second(x_BF)], 1)
        return self.head(both_BC[:, : self.width])


def test_widths_side_by_side_grow_apart_and_a_slice_follows() -> None:
    torch.manual_seed(0)
    model, x_BF = Ghost().double(), torch.randn(6, 5, dtype=torch.float64)
    assert [s.name for s in spaces(model, x_BF) if not s.fixed] == ["first", "second"]
    grown = grow(Host(model, Probe(x_BF, torch.arange(6) % 3)), WidenZero("first", 1.5), 0)
    assert grown.model.get_submodule("head").weight.shape == (3, 10)
    assert float((evaluate(grown.model, x_BF) - evaluate(model, x_BF)).abs().max()) < 1e-12
    assert grown.model.width == 10


def grown_exactly(model: nn.Module, x: Tensor, name: str, factor: float = 2.0) -> nn.Module:
    """The network with that space grown; its function must be the same."""
    before = evaluate(model, x)
    probe = Probe(x, torch.arange(len(x)) % 3)
    grown = grow(Host(model, probe), WidenZero(name, factor), 0).model
    assert float((evaluate(grown, x) - before).abs().max()) < 1e-12
    return grown


def sizes(model: nn.Module, x: Tensor) -> dict[str, int]:
    """What can grow."""
    return {s.name: s.size for s in spaces(model, x) if not s.fixed}


def tokens() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 5, 4, dtype=torch.float64)


class NormOfTokens(nn.Module):
    """Batch norm over tokens, which takes the shape of what went in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x_BTC: Tensor) -> Tensor:
        h_BTC = self.first(x_BTC)
        return self.head(self.norm(h_BTC.flatten(0, 1)).reshape_as(h_BTC))[:, 0]


def test_a_width_passes_through_reshape_as() -> None:
    model, x_BTC = NormOfTokens().double(), tokens()
    assert sizes(model, x_BTC) == {"first": 6}
    assert grown_exactly(model, x_BTC, "first").get_parameter("norm.weight").shape == (12,)


class Biased(nn.Module):
    """Attention with a learned bias for every head, kept while it evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv = 2, nn.Linear(4, 24)
        self.bias, self.head = nn.Parameter(torch.randn(2, 9)), nn.Linear(8, 3)
        self.register_buffer("at", torch.arange(5)[:, None] - torch.arange(5) + 4)
        self.kept: Tensor | None = None

    def train(self, mode: bool = True) -> Biased:
        self.kept = None if mode else self.kept
        return super().train(mode)

    def forward(self, x_BTC: Tensor) -> Tensor:
        batch, length = x_BTC.shape[:2]
        rows = self.qkv(x_BTC).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.kept is None:
            self.kept = self.bias[:, self.at]
        mixed = F.scaled_dot_product_attention(*rows.unbind(0), attn_mask=self.kept)
        return self.head(mixed.transpose(1, 2).flatten(2))[:, 0]


def test_a_bias_of_logits_grows_with_the_heads_and_what_evaluation_keeps_is_dropped() -> None:
    model, x_BTC = Biased().double(), tokens()
    evaluate(model, x_BTC)
    grown = grown_exactly(model, x_BTC, "qkv:heads")
    assert grown.get_parameter("bias").shape == (4, 9) and grown.heads == 4


class Partial(nn.Module):
    """A shortcut to the first channels only."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x_BC: Tensor) -> Tensor:
        h_BC = self.first(x_BC)
        y_BC = self.second(F.relu(h_BC))
        shared_BC = y_BC[:, : self.width] + h_BC
        return self.head(torch.cat([shared_BC, y_BC[:, self.width :]], 1))


def test_slices_at_a_width_that_the_module_holds_are_widths_of_their_own() -> None:
    model, x_BC = Partial().double(), tokens()[:, 0]
    assert sorted(sizes(model, x_BC).values()) == [2, 4]
    grown = grown_exactly(model, x_BC, "first")
    assert grown.get_parameter("second.weight").shape == (10, 8) and grown.width == 8


class Pieces(nn.Module):
    """Two halves of equal width, of which one is read."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [3, 3]
        self.first, self.head = nn.Linear(4, 6), nn.Linear(3, 3)
        self.gate = nn.Linear(3, 1)

    def forward(self, x_BC: Tensor) -> Tensor:
        a_BC, b_BC = self.first(x_BC).split(self.sizes, 1)
        return self.head(a_BC) * self.gate(b_BC)


def test_pieces_of_equal_size_that_the_code_lists_grow_apart() -> None:
    model, x_BC = Pieces().double(), tokens()[:, 0]
    names = list(sizes(model, x_BC))
    assert len(names) == 2
    grown = grown_exactly(model, x_BC, names[0])
    assert sorted(grown.sizes) == [3, 6]


class Positions(nn.Module):
    """Queries meet keys that are a table; or keys that the weight of the queries computes."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.shared, self.size = shared, 3
        self.qk, self.v = nn.Linear(4, 6 if shared else 3), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.table = nn.Parameter(torch.randn(5, 3))

    def forward(self, x_BTC: Tensor) -> Tensor:
        q_BTD, k_BTD = self.qk(x_BTC), self.table
        if self.shared:
            q_BTD, k_BTD = q_BTD.split([self.size, self.size], -1)
        weights_BTT = (q_BTD @ k_BTD.transpose(-1, -2)).softmax(-1)
        return self.head(weights_BTT @ self.v(x_BTC))[:, 0]


def test_new_entries_of_a_table_of_keys_are_silent() -> None:
    model = Positions(shared=False).double()
    grown = grown_exactly(model, tokens(), "qk")
    assert grown.get_parameter("table").shape == (5, 6)


def test_queries_and_keys_of_one_weight_stay_as_new_ones_would_both_be_zero() -> None:
    found = spaces(Positions(shared=True).double(), tokens())
    growing = [part for s in found if not s.fixed for part in s.parts]
    assert growing and not any(p.tensor == "qk.weight" and p.dim == 0 for p in growing)


class HeadsOfAStream(nn.Module):
    """The head size is the stream's width divided by the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.stem, self.q = 2, nn.Linear(4, 8), nn.Linear(8, 8)
        self.out, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = self.stem(x_BTC)
        batch, length, width = x_BTC.shape
        q = self.q(x_BTC).reshape(batch, length, self.heads, width // self.heads)
        return self.head(x_BTC + self.out(q.reshape(batch, length, width)))[:, 0]


def test_more_heads_make_the_stream_wider_and_no_head_smaller() -> None:
    model, x_BTC = HeadsOfAStream().double(), tokens()
    grown = grown_exactly(model, x_BTC, "q:heads")
    assert grown.heads == 4 and grown.get_parameter("q.weight").shape == (16, 16)


class Repeated(nn.Module):
    """A token for every sample, asked for by name."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 6))
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x_BC: Tensor) -> Tensor:
        return self.head(self.first(x_BC) + self.token.tile(dims=(x_BC.shape[0], 1)))


def test_a_width_passes_through_tile_with_sizes_by_name() -> None:
    model, x_BC = Repeated().double(), tokens()[:, 0]
    assert grown_exactly(model, x_BC, "first").get_parameter("token").shape == (1, 12)


class Standardised(nn.Module):
    """A layer whose rows have mean 0, which new columns would move."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x_BC: Tensor) -> Tensor:
        weight = self.second.weight - self.second.weight.mean(1, keepdim=True)
        return self.head(F.linear(F.relu(self.first(x_BC)), weight).relu())


def test_what_a_computed_weight_reads_does_not_grow_and_says_so() -> None:
    found = spaces(Standardised().double(), tokens()[:, 0])
    reasons = {part: s.fixed for s in found for part in [(p.tensor, p.dim) for p in s.parts]}
    assert reasons["first.weight", 0] == "a weight that the code computes reads it"
    assert reasons["head.weight", 1] == ""


def test_a_count_of_one_meets_what_has_no_such_count_and_is_fixed() -> None:
    table = Axes()
    count = table.new(1, "windows")
    table.unite((*count, Fixed(7)), (Fixed(7),), "nothing has windows here")
    assert table.nodes[0].fixed == "nothing has windows here"


def test_positions_are_regrouped_however_they_have_been_written() -> None:
    table = Axes()
    width = table.new(4)
    parts = table.split((*width, Fixed(8), Fixed(7)), [4, 7, 8])
    assert [table.size(part) for part in parts] == [4, 7, 8] and not table.nodes[0].fixed
    table.unite((*width, Fixed(8), Fixed(7)), (*table.new(4), Fixed(7), Fixed(8)), "they differ")
    assert not table.nodes[0].fixed
