"""Activation checkpointing: the same run with less memory, and a second forward that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from growth_kit import a_model, make
from run_kit import parts, train
from torch import Tensor

from progtrain import cli
from progtrain.account import RECOMPUTATION
from progtrain.errors import ConfigError, SettingError
from progtrain.flops import forward_flops, training_flops
from progtrain.hardware.cpu import CPU
from progtrain.hardware.recomputation import recomputed_flops
from progtrain.models.gpt import GPT

TEXT = ("data=text", "data.bytes=4000", "data.length=32", "model=gpt", "model.width=16")
GROWN = ("growth=schedule", "train.ema=0.9")
RAMP = ("warmup=cosine_ramp", "warmup.length=6steps")
AGAIN = "hardware.activation_checkpointing=true"


def held(model: torch.nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass leaves for the backward, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = model(x)
    del out
    return sum(kept.values())


@pytest.mark.parametrize(
    "chosen",
    [
        (*TEXT, *RAMP, "model.dropout=0.1"),
        ("model=vit", "data.shape=[1,8,8]", "warmup=frozen_host"),
        (*TEXT, "train.accumulate=2", "transfer=distill", "warmup=zero_init"),
    ],
)
def test_a_run_has_the_same_bits_with_it(chosen: tuple[str, ...], tmp_path: Path) -> None:
    one = train(parts(*GROWN, *chosen), tmp_path / "one")
    other = train(parts(*GROWN, *chosen, AGAIN), tmp_path / "other")
    assert len(one.run.grown) == 2
    mine, theirs = one.spy.digest, other.spy.digest
    assert one.spy.losses == other.spy.losses
    assert {k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)} == {"account"}
    account = other.run.clock.account
    assert account.flops[RECOMPUTATION] > 0 and RECOMPUTATION not in one.run.clock.account.flops
    assert other.run.clock.now.flops == one.run.clock.now.flops == account.charged


def test_blocks_keep_less_for_the_backward() -> None:
    model = GPT([64], 256, width=32, depth=4, heads=2).train()
    x = torch.randint(256, (2, 64))
    before = held(model, x)
    CPU(activation_checkpointing=True).open().place(model)
    assert held(model, x) < before / 3
    model.eval()
    assert held(model, x) > before / 3  # nothing but training


def test_what_is_computed_again_is_the_forward_of_blocks() -> None:
    model = GPT([64], 256, width=32, depth=4, heads=2)
    x = torch.randint(256, (2, 64))
    head, last = 2 * 64 * 32 * 256, 4 * 2 * 64 * 128 * 32  # of blocks: what only adds to the stream
    again = recomputed_flops(model, x)
    assert again == forward_flops(model, x) - head - last
    frozen = [name for name, _ in model.named_parameters() if name.startswith("blocks.0.")]
    assert again * 0.5 < recomputed_flops(model, x, frozen) <= again
    assert training_flops(model, x) > 2 * again  # and no part of what is charged


def test_a_network_with_statistics_is_refused_before_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["model=cnn", "data=digits", AGAIN, f"hydra.run.dir={tmp_path / 'a'}"]) == 2
    assert "activation_checkpointing=true runs every block twice" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match="batch norm"):
        CPU(activation_checkpointing=True).open().place(a_model("cnn"))


def test_cuda_graphs_do_not_go_with_it() -> None:
    with pytest.raises(SettingError, match=r"hardware\.compile=true works"):
        CPU(activation_checkpointing=True, compile="reduce-overhead")
    assert make("hardware", "cpu").activation_checkpointing is False
