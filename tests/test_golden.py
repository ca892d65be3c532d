"""Law 7: the losses of fifty steps, at full precision, are those of a checked-in file.

The file says which torch, which CPU and how many threads computed them. Where all are the same,
every bit must be; elsewhere a sum may be added up in another order, and the first `NEAR` steps
must agree to a share `TOLERANCE` of the loss (with other instruction sets of one CPU they differ
by less than 1e-6 there; later, training magnifies it). After a change that is meant to move them:

    PROGTRAIN_REWRITE=1 pytest tests/test_golden.py && git diff tests/golden
"""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from run_kit import compared, parts, train

GOLDEN = Path(__file__).parent / "golden"
STEPS, NEAR, TOLERANCE = 50, 20, 1e-3
CONFIGS = {
    "schedule_cosine_ramp_cnn_digits": (
        "growth=schedule",
        "growth.stages.deeper.at=8steps",
        "growth.stages.wider.at=25steps",
        "warmup=cosine_ramp",
        "warmup.length=6steps",
        "model=cnn",
        "data=digits",
        "train.batch_size=16",
    ),
    "budget_zero_init_mlp_synthetic": (
        "growth=budget",
        "growth.trigger.interval=8steps",
        "warmup=zero_init",
        "model=mlp",
        "model.width=32",
        # a bias before a batch norm has a gradient of rounding errors only, which Adam would
        # bring to full size: losses would differ by 1e-3 with other instructions
        "optimizer=sgd",
    ),
    "none_resnet_synthetic": ("growth=none", "model=resnet", "model.width=8", "model.stages=2"),
}


def circumstances() -> str:
    """What the bits of a loss depend on, in a line."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"# torch {torch.__version__}, {capability}, {_processor()}, {platform.machine()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_losses_are_the_golden_ones(name: str, tmp_path: Path) -> None:
    made = parts(*CONFIGS[name], f"train.duration={STEPS}steps", "hardware.threads=1")
    losses = train(made, tmp_path, store=False).spy.losses
    assert len(losses) == STEPS
    got = "\n".join([f"{circumstances()}, 1 thread", *map(repr, losses)]) + "\n"
    head, *lines = compared(GOLDEN / f"{name}.txt", got).splitlines()
    golden = [float(line) for line in lines]
    if got.startswith(f"{head}\n"):
        assert losses == golden, "not the same bits in the same circumstances"
    else:
        print(f"{name}: compared to {TOLERANCE:g}, because the file was made with {head}")
        assert losses[:NEAR] == pytest.approx(golden[:NEAR], rel=TOLERANCE)
        assert len(golden) == STEPS


def test_every_file_has_its_config() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CONFIGS)
