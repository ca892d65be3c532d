"""FLOPs of steps: what the clock counts is what torch's counter sees around real ones.

Left out by both: norms, activations, softmax, the optimizer; torch's counter has no formula for
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from growth_kit import one_thread  # noqa: F401
from run_kit import parts, train
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from progtrain import stepper
from progtrain.run import Run
from progtrain.setup import Setup

LATE = "1e20flops"
ONCE = ("train.duration=6steps", "train.evaluate_every=100%", "growth.consolidation=0steps")
PICTURES = ("data.shape=[1,8,8]", "data.samples=40")
TEXT = ("data=text", "data.length=8", "data.bytes=2000", "model=gpt", "model.width=16")
NETWORKS: dict[str, tuple[str, ...]] = {
    "mlp": ("model=mlp", "model.width=8"),
    "cnn": ("model=cnn", "model.width=4", *PICTURES),
    "resnet": ("model=resnet", "model.width=4", "model.depth=1", *PICTURES),
    "gpt": (*TEXT, "model.heads=2", "model.depth=2"),
    "vit": ("model=vit", "model.width=8", "model.heads=2", "model.depth=2", *PICTURES),
}
GROWTHS = {
    "deeper": ("growth.stages.deeper.at=3steps", f"growth.stages.wider.at={LATE}"),
    "both": ("growth.stages.deeper.at=2steps", "growth.stages.wider.at=4steps"),
}
FROZEN = {
    "thawed": (),
    "host": ("warmup=frozen_host", "warmup.isolation=2steps"),
    "head": ("train.freeze=[head.weight]",),
    "weights that feed others": ("train.freeze=['*blocks.0.*']", "train.thaw=5steps"),
}


def counted(overrides: tuple[str, ...], directory: Path) -> list[tuple[float, float]]:
    """(by the clock, by torch) of every optimizer step of a run."""
    seen, real = list[tuple[float, float]](), stepper.train_step

    def step(run: Run, setup: Setup, *rest: Any) -> Tensor:
        # on a CPU torch fuses attention into a kernel that its counter does not know
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss = real(run, setup, *rest)
        seen.append((run.step_flops, counter.get_total_flops()))
        return loss

    with mock.patch.object(stepper, "train_step", step):
        train(parts(*ONCE, *overrides), directory, store=False)
    return seen


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_steps_cost_what_torch_counts(network: str, growth: str, tmp_path: Path) -> None:
    seen = counted((*NETWORKS[network], "growth=schedule", *GROWTHS[growth]), tmp_path)
    assert [ours for ours, _ in seen] == [theirs for _, theirs in seen]
    assert len({ours for ours, _ in seen}) == (2 if growth == "deeper" else 3)


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("network", ["mlp", "cnn", "gpt"])
def test_steps_of_a_frozen_network_cost_what_torch_counts(
    network: str, frozen: str, tmp_path: Path
) -> None:
    grown = ("growth=schedule", *GROWTHS["deeper"], *FROZEN[frozen])
    seen = counted((*NETWORKS[network], *grown), tmp_path)
    assert seen == [(theirs, theirs) for _, theirs in seen]
    assert len({ours for ours, _ in seen}) == (2 if frozen in ("thawed", "head") else 3)
