"""What a growth takes on the device where the network lies in shards.

    torchrun --nproc-per-node 2 benchmarks/shard_growth.py --json shards.json
    torchrun --nproc-per-node 2 benchmarks/shard_growth.py --smoke     on the CPU, tiny

A GPT doubles its depth after three steps of a few tokens. Told is the memory that tensors take on
rank 0's device: between steps before and after the growth (weights and the optimizer's state), at
most during it, and one whole block; and what the growth took. The aim: at most the old and the new
shards and one block.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).parent))

from gpu_table import Table
from overhead import CONF

from progtrain.boundary import grow
from progtrain.build import build
from progtrain.curriculum.sight import begin
from progtrain.run import Stage
from progtrain.sharding import spread
from progtrain.start import batches_of, new_run, new_setup
from progtrain.stepper import Stepper

_MIB = 2**20
KINDS = {
    "grow_on=cpu": ["hardware.grow_on=cpu"],
    "grow_on=device": ["hardware.grow_on=device"],
    "offload": ["hardware.offload=true"],
}


def settings(smoke: bool, cuda: bool) -> list[str]:
    width, depth = (32, 2) if smoke else (1536, 12)
    return [
        "model=gpt", "data=text", "data.length=128", "data.bytes=200000", "data.validation=0.01",
        "train.batch_size=4",
        f"model.width={width}", f"model.heads={max(2, width // 64)}", f"model.depth={depth}",
        "growth=schedule", "~growth.start", "+growth.start={depth: 0.5}", "deepen=stack",
        f"deepen.add={depth // 2}", "warmup=none", "monitor=none", "hardware=fsdp",
        f"hardware.precision={'bf16' if cuda else 'fp32'}",
    ]  # fmt: skip


def held() -> float:
    gc.collect()
    return torch.cuda.memory_allocated() / _MIB if torch.cuda.is_available() else 0.0


def measured(overrides: Sequence[str]) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parts = build(compose("config", overrides=list(overrides)))
    engine = parts.hardware.open()
    batches = batches_of(parts, engine)
    run, setup = new_run(parts, engine, batches), new_setup(parts, engine, batches)
    begin(run, setup, ranked=True)
    spread(run, engine, parts.optimizer)
    stepper = Stepper(run, setup)
    stepper.take(3)
    run.optimizer.zero_grad()
    growth: Any = parts.growth
    before = held()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    stage = Stage("deeper", growth.stages["deeper"].operator)
    event = grow(run, setup, stage, stepper.controls)
    peak = torch.cuda.max_memory_allocated() / _MIB if torch.cuda.is_available() else 0.0
    stepper.renew()
    stepper.take(3)
    run.optimizer.zero_grad()
    model: Any = run.model
    block = sum(p.numel() * p.element_size() for p in model.blocks[0].parameters()) / _MIB
    return {"before_mib": before, "peak_mib": peak, "after_mib": held(), "block_mib": block,
            "growth_s": event.seconds, "loss": float(stepper.loss),
            "params": f"{event.params_before:,} to {event.params_after:,}"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--smoke", action="store_true", help="tiny, on the CPU")
    arguments = parser.parse_args()
    first = os.environ.get("RANK", "0") == "0"
    table = Table(arguments.json if first else None, 400)
    if not first:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    common = settings(arguments.smoke, torch.cuda.is_available())
    for kind, more in KINDS.items():
        if kind == "offload" and not torch.cuda.is_available():
            continue
        table.measure({"part": kind}, lambda more=more: measured([*common, *more]), 150)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
