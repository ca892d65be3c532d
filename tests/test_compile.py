"""torch.compile and growth: a compiled network grows as an eager one does."""

from __future__ import annotations

import copy
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from run_kit import graphs_alone, parts, train
from torch import Tensor, nn

from progtrain.errors import SettingError
from progtrain.hardware.blocks import blocks, stand_in
from progtrain.hardware.compilation import begin, compiled, count_graphs
from progtrain.hardware.cpu import CPU
from progtrain.hardware.recomputation import recomputed
from progtrain.models.cnn import CNN
from progtrain.models.resnet import ResNet

pytestmark = pytest.mark.filterwarnings("default")  # inductor's own

GROWING = ("growth=schedule", "model=cnn", "model.width=4", "model.depth=2")
DEEPER = (*GROWING, "growth.stages.wider=null")
WIDER = (*GROWING, "growth.stages.deeper=null")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    yield from graphs_alone(monkeypatch)


@pytest.mark.slow
def test_a_compiled_run_grows_by_the_same_stages_as_an_eager_one(tmp_path: Path) -> None:
    common = ["growth=budget", "warmup=cosine_ramp", "model=cnn", "model.width=4", "model.depth=2"]
    eager = train(parts(*common), tmp_path / "eager")
    compiled = train(parts(*common, "hardware.compile=true"), tmp_path / "compiled")
    assert len(eager.run.events) == 2
    assert [e.edit for e in compiled.run.events] == [e.edit for e in eager.run.events]
    assert all(e.preservation_error < 1e-5 for e in compiled.run.events)
    pairs = zip(eager.run.history, compiled.run.history, strict=True)
    assert all(abs(a.metrics["val/loss"] - b.metrics["val/loss"]) < 0.05 for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("warmup", ["none", "cosine_ramp"])
@pytest.mark.parametrize("stages", [DEEPER, WIDER], ids=["deeper", "wider"])
def test_a_traced_run_is_the_eager_one(
    stages: tuple[str, ...], warmup: str, tmp_path: Path, traced: None
) -> None:
    widen = "widen=zero" if warmup == "none" else "widen=random"
    common = (*stages, f"warmup={warmup}", widen, "deepen=random")
    eager = train(parts(*common), tmp_path / "eager")
    compiled = train(parts(*common, "hardware.compile=true"), tmp_path / "compiled")
    assert len(eager.run.events) == 1
    pairs = zip(eager.run.history, compiled.run.history, strict=True)
    assert all(abs(a.metrics["val/loss"] - b.metrics["val/loss"]) < 1e-6 for a, b in pairs)


def blocks_of(depth: int, width: int = 8) -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)))


def compile_blocks(model: nn.Module) -> None:
    stand_in(model, lambda kind: compiled("default", kind.forward))


def graphs_of(model: nn.Module, x: Tensor) -> int:
    """How many graphs a training pass makes."""
    before = count_graphs()
    model(x.requires_grad_()).sum().backward()
    return count_graphs() - before


def test_equal_blocks_share_a_graph_and_a_deeper_network_needs_no_other(traced: None) -> None:
    begin()
    x, small, large = torch.randn(3, 8), blocks_of(2), blocks_of(12)
    for model in (small, large):
        compile_blocks(model)
    assert graphs_of(small, x) == 1
    assert graphs_of(large, x) == 0
    wider = blocks_of(2, 10)
    compile_blocks(wider)
    assert graphs_of(wider, torch.randn(3, 10)) == 1
    assert graphs_of(small, x) == 0  # what was compiled stays


@pytest.mark.parametrize("network", [CNN, ResNet])
def test_a_deeper_stage_needs_no_other_graph(network: Any, traced: None) -> None:
    begin()
    x = torch.randn(2, 3, 8, 8)
    models = [network([3, 8, 8], 4, width=4, depth=depth, stages=2) for depth in (1, 3)]
    for model in models:
        compile_blocks(model)
    assert len(blocks(models[1])) == 2 * (1 + 3)  # entries, and blocks
    assert graphs_of(models[0], x) == 4
    assert graphs_of(models[1], x) == 0


def test_every_layer_of_a_network_of_other_stages_is_in_one_part() -> None:
    for name in ("resnet18", "mobilenet_v3_small", "vit_b_16"):
        model = getattr(torchvision.models, name)()
        parts_of = [set(part.modules()) for part in blocks(model)]
        assert len(parts_of) > 4
        assert sum(map(len, parts_of)) == len(set().union(*parts_of))


def test_a_ramp_on_a_compiled_block_acts_and_ends(traced: None) -> None:
    begin()
    model, x = blocks_of(3), torch.randn(5, 8, requires_grad=True)
    plain, alpha = model(x), torch.tensor(0.0)
    compile_blocks(model)
    assert graphs_of(model, x) == 1
    hooks = [block.register_forward_hook(lambda *_: _[1][0] * (1 + alpha)) for block in model]
    assert torch.equal(model(x), x)
    alpha.fill_(1.0)
    assert torch.equal(model(x), 8 * x)
    for hook in hooks:
        hook.remove()
    assert torch.equal(model(x), plain)
    inner = model[0][0].register_forward_pre_hook(lambda _, args: (args[0] * 0,))  # type: ignore[index]
    assert not torch.equal(model(x), plain)
    inner.remove()
    assert torch.equal(model(x), plain)


def test_compiled_blocks_can_be_computed_again(traced: None) -> None:
    begin()
    one, x = blocks_of(3), torch.randn(5, 8)
    other = copy.deepcopy(one)
    stand_in(other, lambda kind: recomputed(compiled("default", kind.forward)))
    other[1].register_forward_hook(lambda *_: _[2] * 2)
    one[1].register_forward_hook(lambda *_: _[2] * 2)
    before = count_graphs()
    for model in (one, other):
        model(x.requires_grad_()).square().sum().backward()
    assert count_graphs() == before + 1
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


def test_a_copy_is_not_compiled_and_evaluation_makes_no_graph(traced: None) -> None:
    begin()
    model, x = blocks_of(2), torch.randn(3, 8)
    compile_blocks(model)
    before = count_graphs()
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    assert count_graphs() == before
    assert graphs_of(copy.deepcopy(model), x) == 0
    assert graphs_of(model, x) == 1


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(SettingError, match="reduce-overhead"):
        CPU(compile="fast")
    assert CPU(compile="max-autotune").compile == "max-autotune"
