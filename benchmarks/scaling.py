"""How a run speeds up with more GPUs: samples a second of one, and of several by DDP, FSDP2 and
DeepSpeed.

    python benchmarks/scaling.py --json scaling.json        every GPU of this machine
    python benchmarks/scaling.py --smoke                    two processes on the CPU, tiny

Weak scaling: each GPU has the same share of the batch, and the network doubles its depth at half
time. Efficiency is samples a second over (GPUs × those of one GPU), before and after the growth:
medians over the laps between evaluations, without the first of each stage. Memory is the peak of
rank 0. What a growth takes by itself: benchmarks/shard_growth.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SAMPLES_S = "throughput/samples_per_s"


KINDS = {
    "one": ["hardware=gpu"],
    "ddp": ["hardware=ddp"],
    "fsdp": ["hardware=fsdp"],
    "deepspeed": ["hardware=deepspeed"],  # which is not compiled
    "fsdp_again": ["hardware=fsdp", "hardware.activation_checkpointing=true"],
}


def command(hardware: Sequence[str], batch: int, smoke: bool) -> list[str]:
    width, depth, length = (32, 2, 32) if smoke else (768, 12, 1024)
    every, steps = (2, 12) if smoke else (6, 60)
    return [
        *(sys.executable, "-m", "progtrain", "model=gpt", "data=text", "data.bytes=400000"),
        *(f"data.length={length}", "data.validation=0.05", f"model.width={width}"),
        *(
            f"model.heads={max(2, width // 64)}",
            f"model.depth={depth}",
            f"train.batch_size={batch}",
        ),
        *("growth=schedule", "~growth.start", "+growth.start={depth: 0.5}", "widen=zero"),
        *("growth.stages.wider=null", "growth.stages.deeper.at=50%", "deepen=stack"),
        *(f"deepen.add={depth // 2}", "warmup=none", f"train.duration={steps}steps"),
        *(f"train.evaluate_every={every}steps", "checkpoint.every=100%", "report.page=false"),
        *hardware,
    ]


def measured(hardware: Sequence[str], batch: int, smoke: bool) -> dict[str, Any]:
    """Samples a second before and after the growth, its seconds, and the peak of memory."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        words = [*command(hardware, batch, smoke), f"hydra.run.dir={place}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        if done.returncode:
            return {"failed": (done.stderr or done.stdout)[-1500:]}
        rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        events = [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]
    grown = next(event for event in events if "params_after" in event)
    laps = [row for row in rows if SAMPLES_S in row]
    before = [row[SAMPLES_S] for row in laps if row["params"] == grown["params_before"]][1:]
    after = [row[SAMPLES_S] for row in laps if row["params"] != grown["params_before"]][1:]
    return {
        "before": statistics.median(before),
        "after": statistics.median(after),
        "growth_s": grown["growth_seconds"],
        "peak_mib": max(row["memory/peak_mib"] for row in rows if "memory/peak_mib" in row),
        "loss": rows[-1]["val/loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--smoke", action="store_true", help="two processes on the CPU, tiny")
    parser.add_argument("--batch", type=int, default=64, help="samples of each GPU")
    parser.add_argument("--kinds", default="one,ddp,fsdp", help=", ".join(KINDS))
    arguments = parser.parse_args()
    smoke, gpus = arguments.smoke, torch.cuda.device_count()
    batch, most = (4, 2) if smoke else (arguments.batch, gpus)
    options = ["hardware.compile=true"] if not smoke else ["hardware.device=cpu"]
    options += [] if smoke else ["hardware.precision=bf16"]
    rows: list[dict[str, Any]] = []
    for kind in arguments.kinds.split(","):
        count = 1 if kind == "one" else most
        hardware = [
            *KINDS[kind],
            *(o for o in options if kind != "deepspeed" or "compile" not in o),
        ]
        if kind == "one":
            hardware = ["hardware=cpu"] if smoke else hardware
        else:
            hardware.append(f"hardware.devices={count}")
        row = {"kind": kind, "gpus": count, **measured(hardware, batch * count, smoke)}
        first = rows[0] if rows else row
        for name in ("before", "after") if first["kind"] == "one" else ():
            if name in row and name in first:
                row[f"efficiency_{name}"] = row[name] / (count * first[name])
        rows.append(row)
        print(json.dumps(row), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
