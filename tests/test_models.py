"""Networks of tokens and patches by their properties, torchvision's by name, where they start."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import yaml
from hydra import compose, initialize_config_dir
from run_kit import CONF, parts, train
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models as their

from progtrain import build
from progtrain.errors import ConfigError, EnvironmentProblem, SettingError
from progtrain.models.gpt import GPT
from progtrain.models.torchvision_models import Torchvision
from progtrain.models.transformer import MLP, Attention, BlockSettings, ResidualOutput, rotated
from progtrain.models.vit import ViT

SMALL: dict[str, Any] = {"shape": (12,), "num_classes": 11, "width": 16, "depth": 2, "heads": 4}
DECODERS: list[dict[str, Any]] = [
    {},
    {"kv_heads": 2},
    {"kv_heads": 1, "mlp": "swiglu", "qk_norm": True},
    {"head_size": 6, "hidden": 10, "norm": "layer"},
    {"positions": "learned", "tied": True},
    {"depth": 0},
    {"dropout": 0.5},
]
VITS: list[dict[str, Any]] = [
    {"shape": (1, 8, 8)},
    {"shape": (3, 8, 12), "patch": 4, "hidden": 10},
    {"shape": (1, 8, 8), "depth": 0, "dropout": 0.5},
]


def _tokens(batch: int = 3, length: int = 12) -> Tensor:
    return torch.randint(11, (batch, length), generator=torch.Generator().manual_seed(1))


def _gpt(**more: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(**{**SMALL, **more}).eval()


def _vit(**more: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{"num_classes": 5, "width": 16, "depth": 2, **more}).eval()


def _without_gradient(model: nn.Module, x: Tensor) -> list[str]:
    model.train()
    F.cross_entropy(
        model(x).flatten(0, -2), torch.arange(len(model(x).flatten(0, -2))) % 5
    ).backward()
    return [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]


# Transformers.


@pytest.mark.parametrize("more", DECODERS, ids=str)
def test_a_decoder_gives_logits_a_position_and_a_gradient_to_every_parameter(
    more: dict[str, Any],
) -> None:
    model = _gpt(**more)
    assert model(_tokens()).shape == (3, 12, 11)
    assert _without_gradient(model, _tokens()) == []


@pytest.mark.parametrize("more", VITS, ids=str)
def test_a_vision_transformer_gives_logits_and_a_gradient_to_every_parameter(
    more: dict[str, Any],
) -> None:
    model = _vit(**more)
    x = torch.randn(6, *more["shape"])
    assert model(x).shape == (6, 5)
    unread = {"patches.weight", "patches.bias"} if more.get("depth") == 0 else set[str]()
    assert set(_without_gradient(model, x)) == unread, "no block: the token sees no patch"


@pytest.mark.parametrize("more", DECODERS[:5], ids=str)
def test_a_decoder_sees_nothing_of_what_comes_later(more: dict[str, Any]) -> None:
    model, x, other = _gpt(**more), _tokens(), _tokens()
    other[:, 7] = (other[:, 7] + 1) % 11
    before, after = model(x), model(other)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    moved = (before - after).abs().amax((0, 2))
    assert bool((moved[7:] > 1e-5).all()), "every later position sees the change"


def test_a_vision_transformer_reads_every_patch_with_its_place() -> None:
    model, x = _vit(shape=(1, 8, 8)).requires_grad_(False), torch.randn(1, 1, 8, 8)
    for corner in ((0, 0), (7, 7)):
        other = x.clone()
        other[0, 0, *corner] += 1
        assert float((model(x) - model(other)).abs().max()) > 1e-5
    swapped = torch.cat([x[..., 4:], x[..., :4]], -1)
    assert float((model(x) - model(swapped)).abs().max()) > 1e-5


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_decoder_knows_the_order_of_what_it_has_seen(positions: str) -> None:
    model, x = _gpt(positions=positions).requires_grad_(False), _tokens()
    swapped = x[:, [1, 0, *range(2, 12)]]
    assert float((model(x) - model(swapped))[:, -1].abs().max()) > 1e-5


def test_grouped_queries_are_full_attention_with_repeated_keys_and_values() -> None:
    grouped = _gpt(kv_heads=2)
    full = _gpt(kv_heads=4)
    state = grouped.state_dict()
    for name in [n for n in state if n.endswith(("attention.k.weight", "attention.v.weight"))]:
        heads_GDW = state[name].unflatten(0, (2, -1))
        state[name] = heads_GDW.repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(state)
    torch.testing.assert_close(full(_tokens()), grouped(_tokens()))


def test_attention_is_softmax_of_scaled_products_over_the_past() -> None:
    torch.manual_seed(0)
    attention = Attention(BlockSettings(width=8, depth=1, heads=2, causal=True)).eval()
    x_BTW = torch.randn(2, 5, 8)
    q, k, v = (
        layer(x_BTW).unflatten(2, (2, 4)) for layer in (attention.q, attention.k, attention.v)
    )
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    torch.testing.assert_close(attention(x_BTW), attention.o(mixed.flatten(2)))


def test_a_gated_mlp_multiplies_its_two_halves() -> None:
    mlp = MLP(BlockSettings(width=8, depth=1, heads=2, mlp="swiglu"))
    x = torch.randn(2, 3, 8)
    assert mlp.gate is not None
    gate = mlp.gate(x)
    torch.testing.assert_close(mlp(x), mlp.down(gate * torch.sigmoid(gate) * mlp.up(x)))


def test_rotary_products_depend_on_the_distance_alone() -> None:
    q_D, k_D = torch.randn(2, 16, generator=torch.Generator().manual_seed(2))
    q_TD = rotated(q_D.expand(1, 1, 20, 16))[0, 0]
    k_TD = rotated(k_D.expand(1, 1, 20, 16))[0, 0]
    products = q_TD @ k_TD.T
    for distance in range(-19, 20):
        same = products.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-4)
    assert float(products[0].std()) > 0.1, "and on the distance it does depend"
    torch.testing.assert_close(q_TD.norm(dim=1), q_D.norm().expand(20))
    assert torch.equal(q_TD[0], q_D), "position 0 is not turned"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rotary_positions_keep_the_precision_they_are_given(dtype: torch.dtype) -> None:
    assert rotated(torch.randn(1, 1, 3, 4, dtype=dtype)).dtype is dtype


def test_a_tied_head_is_the_embedding() -> None:
    tied, free = _gpt(tied=True), _gpt()
    assert tied.head.weight is tied.embedding.weight
    assert "head.weight" not in dict(tied.named_parameters())
    sizes = [sum(p.numel() for p in model.parameters()) for model in (free, tied)]
    assert sizes[0] - sizes[1] == 11 * 16
    again = copy.deepcopy(tied)
    assert again.head.weight is again.embedding.weight


def test_outputs_of_residual_branches_start_smaller_the_deeper_and_stay_so_when_made_anew() -> None:
    torch.manual_seed(0)
    shallow, deep = (ResidualOutput(400, 400, n).requires_grad_(False) for n in (1, 16))
    for _ in range(2):
        assert float(shallow.weight.std() / deep.weight.std()) == pytest.approx(4, rel=0.02)
        deep.reset_parameters()
    gains = {m.gain for m in _gpt(depth=2).modules() if isinstance(m, ResidualOutput)}
    assert gains == {0.5}


def test_sizes_follow_weights_and_plain_attributes() -> None:
    """What growing changes: twice the heads, then larger heads, on the same module."""
    attention = Attention(BlockSettings(width=8, depth=1, heads=2, causal=True, rotary=True))
    x_BTW = torch.randn(2, 5, 8)
    projections = (attention.q, attention.k, attention.v)
    for heads, size in ((4, 4), (4, 10)):
        attention.heads = attention.kv_heads = heads
        for layer in projections:
            layer.weight = nn.Parameter(torch.randn(heads * size, 8))
        attention.o.weight = nn.Parameter(torch.randn(8, heads * size))
        assert attention(x_BTW).shape == (2, 5, 8)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"width": 18}, r"width must be a multiple of 2 × heads = 8, got 18\. Try 16"),
        ({"width": 18, "positions": "learned"}, "width must be a multiple of heads = 4"),
        ({"head_size": 5}, "head_size must be even with positions=rotary"),
        ({"kv_heads": 3}, "kv_heads must be a divisor of heads=4, or null"),
        ({"kv_heads": 0}, "kv_heads must be a divisor of heads=4, or null"),
        ({"heads": 0}, "heads must be a whole number"),
        ({"norm": "batch"}, "norm must be one of rms, layer"),
        ({"mlp": "relu"}, "mlp must be one of gelu, swiglu"),
        ({"positions": "none"}, "positions must be one of rotary, learned"),
        ({"dropout": 1.0}, r"dropout must be a share in \[0, 1\)"),
        ({"shape": (1, 8, 8)}, "This model reads tokens; try data=text"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused_by_name(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        _gpt(**more)
    assert _gpt(head_size=5, positions="learned", width=18)(_tokens()).shape == (3, 12, 11)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"shape": (1, 8, 12), "patch": 3}, r"divisor of the image's 8 × 12.* one of 1, 2, 4\."),
        ({"shape": (1, 8, 8), "patch": 0}, "patch must be a whole number"),
        ({"shape": (1, 8, 8), "heads": 3}, "width must be a multiple of heads = 3"),
        ({"shape": (128,)}, "This model reads images"),
    ],
)
def test_a_vision_transformer_that_cannot_be_is_refused_by_name(
    more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        _vit(**more)


@pytest.mark.parametrize(
    "model", [("model=gpt", "data=text"), ("model=gpt", "data=text", "model.kv_heads=2"),
              ("model=vit", "data=digits")], ids=str
)  # fmt: skip
def test_half_the_width_and_depth_is_a_network_too(model: tuple[str, ...]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = build.build(compose("config", ["growth=schedule", *model]))
    half, full = made.model_factory(made.growth.start), made.model_factory({})
    blocks = [next(m for n, m in net.named_modules() if n == "blocks") for net in (half, full)]
    assert [len(stack) for stack in blocks] == [2, 4]  # type: ignore[arg-type]
    widths = [net.norm.weight.shape[0] for net in (half, full)]  # type: ignore[union-attr]
    assert 2 * widths[0] == widths[1]
    assert made.notes == ()


# torchvision's networks.


def _theirs(name: str, shape: Sequence[int] = (3, 32, 32), classes: int = 10, **more: Any) -> Any:
    torch.manual_seed(0)
    return Torchvision(shape, classes, name, **more)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (1, 16, 16)),
        ("efficientnet_b0", (3, 32, 32)),
        ("squeezenet1_1", (4, 32, 32)),
        ("googlenet", (1, 32, 32)),
        ("inception_v3", (1, 96, 96)),
        ("shufflenet_v2_x0_5", (3, 8, 8)),
    ],
)
def test_a_network_of_torchvision_takes_the_data_s_channels_and_classes(
    name: str, shape: tuple[int, ...]
) -> None:
    model = _theirs(name, shape, 7)
    assert type(model).__module__.startswith("torchvision.models.")
    logits_BK = model.train()(torch.randn(2, *shape))
    assert isinstance(logits_BK, Tensor), "no second output while it trains"
    assert logits_BK.shape == (2, 7)
    F.cross_entropy(logits_BK, torch.tensor([0, 6])).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "maxvit_t", "swin_v2_t", "densenet121"])
def test_large_networks_are_looked_at_without_memory(name: str) -> None:
    with torch.device("meta"):
        model = _theirs(name, (1, 224, 224))
    with torch.no_grad():
        assert model.eval()(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", their.list_models(module=their))
def test_every_network_of_torchvision_builds(name: str) -> None:
    try:
        with torch.device("meta"):
            model = _theirs(name, (1, 224, 224))
    except NotImplementedError:  # regnets look at values as they are built
        if "regnet" not in name or not name.endswith(("400mf", "800mf")):
            pytest.skip("it cannot be built without memory")
        model = _theirs(name, (1, 224, 224)).to("meta")
    with torch.no_grad():
        assert model.eval()(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 10)


def test_arguments_go_to_torchvision_s_builder() -> None:
    dropouts = [m.p for m in _theirs("efficientnet_b0", arguments={"dropout": 0.55}).modules()
                if isinstance(m, nn.Dropout)]  # fmt: skip
    assert dropouts == [0.55]
    with pytest.raises(SettingError, match=r"arguments of torchvision's resnet18.*'foo'"):
        _theirs("resnet18", arguments={"foo": 1})
    with pytest.raises(SettingError, match="other than num_classes, weights"):
        _theirs("resnet18", arguments={"num_classes": 3})


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(SettingError) as caught:
        _theirs("resnet81")
    told = caught.value.sentence("model")
    assert told.startswith("model.name must be one of torchvision's 80 networks")
    assert "got 'resnet81'. Did you mean 'resnet18'? Near: resnet18, " in told


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vgg11", (1, 8, 8), r"vgg11 cannot read images of data.shape=\[1, 8, 8\].*32 × 32 would"),
        ("inception_v3", (3, 64, 64), r"data.shape=\[3, 64, 64\].*96 × 96 would do"),
        ("maxvit_t", (3, 64, 64), r"maxvit_t cannot be built for data.shape=\[3, 64, 64\]"),
        ("vit_b_16", (3, 60, 60), r"a multiple of 16; data.shape is .*\[3, 64, 64\]"),
        ("vit_b_16", (3, 64, 32), "square images"),
    ],
)
def test_images_that_a_network_cannot_read_are_refused_before_anything_starts(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    given = f"[{','.join(map(str, shape))}]"
    overrides = ["model=torchvision", f"model.name={name}", "data=synthetic", f"data.shape={given}"]
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(ConfigError, match=message),
    ):
        build.build(compose("config", overrides))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_a_file_come_back_and_only_what_the_data_demand_is_fresh(
    ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"weights.{ending}"
    source = _theirs("shufflenet_v2_x0_5", (1, 8, 8), 7)
    state = source.state_dict()
    torch.save(state, file) if ending == "pth" else safetensors.torch.save_file(state, file)
    same = _theirs("shufflenet_v2_x0_5", (1, 8, 8), 7, weights=str(file)).state_dict()
    assert all(torch.equal(same[name], state[name]) for name in state)
    other = _theirs("shufflenet_v2_x0_5", (3, 8, 8), 5, weights=str(file)).state_dict()
    fresh = {name for name in state if not torch.equal(other[name], state[name])}
    assert fresh == {"conv1.0.weight", "fc.weight", "fc.bias"}
    assert (other["conv1.0.weight"].shape[1], other["fc.bias"].shape[0]) == (3, 5)


def test_files_that_hold_no_such_weights_say_so(tmp_path: Path) -> None:
    torch.save(_theirs("squeezenet1_1").state_dict(), tmp_path / "other.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    for file, message in {
        "absent.pth": "no file",
        "other.pth": "is of another network",
        "epoch.pth": "is no state dict",
        "noise.pth": "cannot be read",
        "noise.safetensors": "cannot be read",
    }.items():
        with pytest.raises(ConfigError, match=message) as caught:
            _theirs("resnet18", weights=str(tmp_path / file))
        assert str(tmp_path / file) in str(caught.value)
    with pytest.raises(SettingError, match=r"weights must be null, a file.*Did you mean 'DEFAULT'"):
        _theirs("resnet18", weights="DEFALT")


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "googlenet", "inception_v3"])
def test_pretrained_weights_are_torchvision_s_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {} if name.startswith("shuffle") else {"init_weights": False, "aux_logits": True}
    published = their.get_model_builder(name)(weights=None, **more).state_dict()
    asked: list[str] = []

    def download(url: str, *_: Any, **__: Any) -> dict[str, Tensor]:
        asked.append(url)
        return published

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with torch.device("meta"):
        _theirs(name, weights="DEFAULT", shape=(1, 96, 96))
    assert not asked, "looking at a network downloads nothing"
    model = _theirs(name, weights="DEFAULT", shape=(1, 96, 96))
    assert asked == [their.get_model_weights(name)["DEFAULT"].url]
    assert isinstance(model.train()(torch.randn(2, 1, 96, 96)), Tensor)
    state = model.state_dict()
    fresh = {n for n in state if not torch.equal(state[n], published[n])} - {
        n for n in state if "running" in n or "tracked" in n
    }
    assert fresh == {n for n in fresh if n.startswith(("conv1.", "Conv2d_1a", "fc."))}
    assert {"fc.weight", "fc.bias"} < fresh


def test_weights_that_cannot_be_downloaded_are_the_environment_s_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(EnvironmentProblem, match=r"https://.*no route.*model.weights to the path"):
        _theirs("shufflenet_v2_x0_5", weights="IMAGENET1K_V1")


# Where a model without width and depth starts.

THEIRS = ("model=torchvision", "model.name=squeezenet1_1", "data=synthetic", "data.shape=[1,32,32]")


def test_the_start_that_every_growth_has_is_the_one_that_may_be_left_out() -> None:
    starts = {}
    for file in (CONF / "growth").glob("*.yaml"):
        start = yaml.safe_load(file.read_text())["start"]
        if start:
            starts[file.stem] = start
    assert len(starts) >= 3
    assert all(start == build._START for start in starts.values())  # pyright: ignore


def test_a_network_without_sizes_starts_as_it_is_and_says_so(tmp_path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = build.build(compose("config", ["growth=schedule", *THEIRS]))
        alone = build.build(compose("config", ["growth=none", *THEIRS]))
    start, full = made.model_factory(made.growth.start), made.model_factory({})
    assert [p.shape for p in start.parameters()] == [p.shape for p in full.parameters()]
    (note,) = made.notes
    assert (
        note == "growth.start: this model has no setting width or depth; it starts at its full size"
    )
    assert alone.notes == ()


def test_the_note_is_shown_when_the_run_begins(tmp_path: Path) -> None:
    made = parts("growth=none", "train.duration=1steps")
    spy = train(replace(made, notes=("a note",)), tmp_path, store=False).spy
    assert spy.notes[0] == "a note"


@pytest.mark.parametrize(
    "typed", ["growth.start.width=0.25", "growth.start.depth=1", "+growth.start.widht=0.5"]
)
def test_a_size_that_was_typed_is_never_left_out(typed: str) -> None:
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(ConfigError, match="no setting of the model"),
    ):
        build.build(compose("config", ["growth=schedule", *THEIRS, typed]))


def test_a_budget_without_a_limit_needs_a_smaller_start(tmp_path: Path) -> None:
    full = ("growth=budget", "growth.start={width: 8, depth: 2}")
    with pytest.raises(ConfigError, match=r"nothing to spend.*growth\.max_params=\d+"):
        train(parts(*full), tmp_path, store=False)
    ended = train(parts(*full, "growth.max_params=100000"), tmp_path, store=False)
    assert ended.run.events


@pytest.mark.parametrize(("given", "width"), [(1, 1), (1.0, 8), (8.0, 8), (0.5, 4)])
def test_the_share_1_is_the_full_size_and_the_count_1_is_one(given: float, width: int) -> None:
    model = parts("growth=none", "model.width=8").model_factory({"width": given})
    assert next(iter(model.parameters())).shape[0] == width
