"""What `task=plan` foresees beside what the run then takes, for six networks.

    python benchmarks/plan.py                       or      --models mlp gpt --device gpu

For each network a plan is made and the same run trained, each in a process of its own. The run's
numbers come from its real training steps: parameters of its network; FLOPs of one step, forward and
backward, by `torch.utils.flop_counter`; the peak of the step's memory; seconds of all of it.

On a CPU the peak is that of the resident set (VmHWM, set back before every step) over what the
process took before the network was built, with malloc told to give freed blocks back at once. It
holds what libraries take beside torch, and is taken in pages. On CUDA it is what the allocator has
handed out at most, less what there was before the network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from progtrain import job, stepper
from progtrain.build import Parts, build
from progtrain.planning.rows import Rehearsal
from progtrain.report.many import Many
from progtrain.run import Run

CONF = Path(__file__).resolve().parents[1] / "conf"
IMAGES = ("data=synthetic", "data.samples=1024")
COMMON = (
    *("growth=schedule", "growth.stages.deeper.at=3steps", "growth.stages.wider.at=6steps"),
    *("train.duration=10steps", "train.evaluate_every=5steps", "checkpoint.every=100%"),
)
MODELS: dict[str, tuple[str, ...]] = {
    "mlp": ("model=mlp", "model.width=2048", "model.depth=4", *IMAGES, "train.batch_size=512"),
    "cnn": ("model=cnn", "model.width=64", *IMAGES, "train.batch_size=64"),
    "resnet": ("model=resnet", "model.width=32", *IMAGES, "train.batch_size=64"),
    "vit": ("model=vit", "model.width=128", "model.patch=4", *IMAGES, "train.batch_size=128"),
    "gpt": ("model=gpt", "model.width=256", "data=text", "data.bytes=40000",
            "train.batch_size=32"),
    "mobilenet": ("model=torchvision", "model.name=mobilenet_v3_small", *IMAGES,
                  "data.shape=[3,96,96]", "data.samples=256", "train.batch_size=32"),
}  # fmt: skip


def parts_of(model: str, device: str, more: tuple[str, ...] = ()) -> Parts:
    overrides = [*COMMON, *MODELS[model], f"hardware={device}", *more]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(compose("config", overrides=overrides))


def planned(parts: Parts, directory: Path) -> dict[str, Any]:
    """The plan as `plan.json` has it."""
    kept: list[Rehearsal] = []
    with mock.patch.object(job, "print_plan", lambda run, rehearsal: kept.append(rehearsal)):
        job.train_job(_replace(parts, task="plan"), directory)
    return kept[0].to_json()


def trained(parts: Parts, directory: Path) -> dict[str, Any]:
    """What the run takes: rows by stage, and the seconds of all of it behind its start."""
    probe = Measuring()
    step, built = stepper.train_step, job.new_run

    def measured_step(run: Run, *rest: Any) -> Any:
        return probe.step(run, lambda: step(run, *rest))

    def measured_build(*given: Any) -> Run:
        probe.begin()
        return built(*given)

    with (
        mock.patch.object(stepper, "train_step", measured_step),
        mock.patch.object(job, "new_run", measured_build),
        mock.patch.object(job, "reporter", lambda *_: Many([])),
    ):
        job.train_job(_replace(parts, task="train"), directory)
    return {"rows": list(probe.rows.values()), "seconds": time.perf_counter() - probe.begun}


class Measuring:
    """Rows by stage, filled by real steps."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        self.base = self.begun = 0.0

    def begin(self) -> None:
        """Before the network is built."""
        _warm()
        self.base = _taken()
        self.begun = time.perf_counter()

    def step(self, run: Run, work: Any) -> Any:
        name = run.events[-1].stage if run.events else "start"
        row = self.rows.setdefault(name, {"params": run.params, "memory": 0.0, "steps": 0})
        row["steps"] += 1
        if row["steps"] == 2:  # counting keeps nothing and changes nothing
            with FlopCounterMode(display=False) as counter:
                loss = work()
            row["flops"] = float(counter.get_total_flops())
            return loss
        _reset()
        loss = work()
        row["memory"] = max(row["memory"], _peak() - self.base)
        return loss


def _warm() -> None:
    """What torch and its libraries take once, whatever is computed."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(8))
    net.to(device)(torch.rand(4, 3, 16, 16, device=device)).sum().backward()


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def _taken() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.memory_allocated())
    return _status("VmRSS:")


def _reset() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _peak() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return _status("VmHWM:")


def _replace(parts: Parts, **changes: Any) -> Parts:
    from dataclasses import replace

    return replace(parts, **changes)


def compared(model: str, device: str, more: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """A row a stage: what was foreseen, what was measured."""
    plan, run = (_apart(model, device, what, more) for what in ("plan", "run"))
    rows = [
        {
            "model": model,
            "stage": foreseen["name"],
            "params": (foreseen["params"], seen["params"]),
            "flops": (foreseen["flops_per_step"], seen["flops"]),
            "memory": (foreseen["step_memory"], seen["memory"]),
        }
        for foreseen, seen in zip(plan["stages"], run["rows"], strict=True)
    ]
    rows[-1]["seconds"] = (plan["totals"]["seconds"]["most"], run["seconds"])
    return rows


def _apart(model: str, device: str, what: str, more: tuple[str, ...]) -> dict[str, Any]:
    """The plan or the run, in a process of its own."""
    command = [sys.executable, __file__, "--models", model, "--device", device, "--only", what]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    told = subprocess.run(
        [*command, *more], env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return json.loads(told.splitlines()[-1])


def difference(pair: tuple[float, float]) -> str:
    return f"{pair[0] / pair[1] - 1:+.1%}"


def cells(row: dict[str, Any]) -> list[str]:
    params, flops, memory = row["params"], row["flops"], row["memory"]
    seconds = row.get("seconds")
    return [
        row["model"], row["stage"],
        f"{params[0]:,} ({difference(params)})",
        f"{flops[0] / 1e9:.2f} ({difference(flops)})",
        *(f"{each / 2**20:.1f}" for each in memory), difference(memory),
        *([f"{seconds[0]:.1f} / {seconds[1]:.1f}"] if seconds else [""]),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--only", choices=["plan", "run"])
    parser.add_argument("more", nargs="*", help="settings of progtrain")
    asked, more = parser.parse_known_args()
    given = tuple([*asked.more, *more])
    if asked.only:
        parts = parts_of(asked.models[0], asked.device, given)
        with tempfile.TemporaryDirectory() as folder:
            work = planned if asked.only == "plan" else trained
            print(json.dumps(work(parts, Path(folder))))
        return
    heads = ("network", "stage", "parameters (off by)", "GFLOPs a step (off by)", "peak MiB, plan",
             "peak MiB, run", "off by", "seconds, plan / run")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for model in asked.models:
        for row in compared(model, asked.device, given):
            print(f"| {' | '.join(cells(row))} |", flush=True)


if __name__ == "__main__":
    main()
