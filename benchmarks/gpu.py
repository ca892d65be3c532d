"""What one GPU gives: overhead of a step, MFU, steps a second of small stages, cost of a growth.

    python benchmarks/gpu.py --json gpu.json            one table, minutes
    python benchmarks/gpu.py --smoke                    tiny sizes, on a CPU as well
    python benchmarks/gpu.py --cifar DIR                DIR as torchvision lays CIFAR-10 out

Every row is measured by itself: what fails, or takes longer than its limit, says why in its row.
Step: the hand-written loop and progtrain's step take turns in one process, blocks of steps, medians
of the ratios. `waits` is whether torch found a synchronisation within steps. Growth: seconds of the
transaction, of the first step after it (compilation), and of a later one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

CACHE = tempfile.mkdtemp()  # so that what is called cold is
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", CACHE)

import torch  # noqa: E402
from gpu_table import Table  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from overhead import CONF, assemble  # noqa: E402
from overhead import _Never as Never  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from progtrain import job  # noqa: E402
from progtrain.build import Parts, build  # noqa: E402
from progtrain.growth.transaction import transact  # noqa: E402
from progtrain.hardware.compilation import mode_of  # noqa: E402
from progtrain.monitors.mfu import known_peak  # noqa: E402
from progtrain.run import Stage  # noqa: E402
from progtrain.setup import Setup  # noqa: E402
from progtrain.stepper import Stepper  # noqa: E402

CUDA = torch.cuda.is_available()
IMAGES = ("data=synthetic", "data.samples=4096", "data.shape=[3,32,32]", "data.num_classes=10")


def sync() -> None:
    if CUDA:
        torch.cuda.synchronize()


def parts_of(overrides: Sequence[str], compile: bool | str, never: bool = True) -> Parts:
    precision = "bf16" if CUDA else "fp32"
    hardware = (f"hardware.precision={precision}", f"hardware.compile={compile}", "monitor=none")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parts = build(compose("config", overrides=[*overrides, *hardware]))
    return replace(parts, growth=Never()) if never else parts


def seconds_of(steps: int, step: Callable[[], Any]) -> float:
    sync()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    sync()
    return (time.perf_counter() - begun) / steps


def stepping(stepper: Stepper) -> Callable[[], None]:
    def step() -> None:
        stepper.look_ahead()
        stepper.step()

    return step


def by_hand(setup: Setup) -> Callable[[], None]:
    """The step a PyTorch user writes."""
    engine, data, size = setup.engine, setup.batches.sets, setup.train.batch_size
    device, model = engine.device, engine.place(setup.model_factory({})).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=CUDA or None)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    order, position = torch.randperm(len(data.train), device=device), 0

    def step() -> None:
        nonlocal order, position
        if position + size > len(order):
            order, position = torch.randperm(len(data.train), device=device), 0
        index = order[position : position + size]
        position += size
        x, y = data.normalise(data.train.x[index]), data.train.y[index].long()
        optimizer.zero_grad(set_to_none=True)
        engine.begin_step()
        with engine.autocast():
            logits = model(x)
            loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()

    return step


def waits(step: Callable[[], None]) -> str:
    """Whether torch finds that a step waits for the device, and where in our code."""
    if not CUDA:
        return "no GPU"
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    except RuntimeError as error:
        own = [f for f in traceback.extract_tb(error.__traceback__) if "progtrain" in f.filename]
        return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else str(error)[:200]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "no"


def step_overhead(overrides: Sequence[str], compile: bool | str, steps: int) -> dict[str, Any]:
    run, setup = assemble(parts_of(overrides, compile))
    loops = {"hand": by_hand(setup), "ours": stepping(Stepper(run, setup))}
    begun = time.perf_counter()
    for loop in loops.values():
        seconds_of(5, loop)
    warm = time.perf_counter() - begun
    times = {name: list[float]() for name in loops}
    for _ in range(7):
        for name, loop in loops.items():
            times[name].append(seconds_of(steps, loop))
    ratios = [a / b for a, b in zip(times["ours"], times["hand"], strict=True)]
    millis = {f"{name}_ms": statistics.median(each) * 1e3 for name, each in times.items()}
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    found = {**millis, "ratio": statistics.median(ratios), "spread": spread, "warm_s": warm}
    return {**found, "waits": waits(loops["ours"])}


def gpt(width: int, depth: int, smoke: bool, *more: str) -> list[str]:
    length, batch = (32, 4) if smoke else (1024, 64)
    width, heads = (32, 2) if smoke else (width, width // 64)
    return ["model=gpt", "data=text", f"data.length={length}", "data.bytes=400000",
            f"model.width={width}", f"model.heads={heads}", f"model.depth={depth}",
            f"train.batch_size={batch}", *more]  # fmt: skip


def speed(overrides: Sequence[str], compile: bool | str, steps: int) -> dict[str, Any]:
    """Steps a second, and the share of the device's peak that the counted FLOPs make."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    run, setup = assemble(parts_of(overrides, compile))
    step, graphs = stepping(Stepper(run, setup)), setup.engine.graphs
    warm = seconds_of(4, step) * 4
    each = statistics.median(seconds_of(steps, step) for _ in range(3))
    tflops = run.flops * run.batch_size / each / 1e12
    peak = known_peak(setup.engine)
    memory = torch.cuda.max_memory_allocated() / 2**30 if CUDA else 0.0
    return {"ms": each * 1e3, "steps_s": 1 / each, "tflops": tflops, "mfu": tflops / peak,
            "warm_s": warm, "GiB": memory, "graphs": setup.engine.graphs - graphs}  # fmt: skip


def growth_cost(overrides: Sequence[str], compile: bool | str, operator: str) -> dict[str, Any]:
    parts = parts_of([*overrides, "warmup=none"], compile, never=False)
    growing: Any = parts.growth
    never = Never()
    never.start = growing.start
    run, setup = assemble(replace(parts, growth=never))
    stepper = Stepper(run, setup)
    step = stepping(stepper)
    first = seconds_of(3, step) * 3
    graphs = setup.engine.graphs
    stage = Stage(operator, growing.stages[operator].operator)
    sync()
    begun = time.perf_counter()
    event = transact(run, setup, stage, stepper.controls)
    stepper.renew()
    sync()
    grown = time.perf_counter() - begun
    after = seconds_of(1, step)
    new = setup.engine.graphs - graphs
    later = seconds_of(3, step)
    return {"growth_s": grown, "first_step_s": after, "later_step_s": later, "new_graphs": new,
            "cost_s": grown + after - later, "start_s": first,
            "params": f"{event.params_before:,} to {event.params_after:,}"}  # fmt: skip


def cifar(table: Table, root: str, smoke: bool) -> None:
    """Seconds of training until 94 % on held-out images, and accuracy on the test split.

    torchvision's ResNet-18, a residual network of ours, and ours growing from half its blocks.
    """
    sizes = ["model.width=8"] if smoke else ["model.width=64"]
    ours = ["model=resnet", *sizes, "model.stages=4", "model.depth=2"]
    growing = ["growth=schedule", "~growth.start", "+growth.start={depth: 0.5}", "warmup=none",
               "growth.stages.wider=null", "growth.stages.deeper.at=30%",
               "deepen=identity"]  # fmt: skip
    arms = {"resnet18": ["model=torchvision"], "ours": ours, "ours, growing": [*ours, *growing]}
    common = ["growth=none", "data=cifar10", f"data.root={root}", "data.download=false",
              "data.validation=0.04", "augment=standard", "train.batch_size=256", "optimizer=sgd",
              "optimizer.lr=0.1", "optimizer.weight_decay=5e-4", "hardware.precision=bf16",
              f"train.duration={'2steps' if smoke else '30epochs'}", "report.page=false",
              "train.evaluate_every=1epoch", "checkpoint.every=100%"]  # fmt: skip
    for name, more in arms.items():

        def train(more: list[str] = more) -> dict[str, Any]:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                parts = build(compose("config", overrides=[*common, *more]))
            with tempfile.TemporaryDirectory() as folder:
                job.train_job(parts, Path(folder))
                result = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))
                rows = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            seen = [row for row in map(json.loads, rows) if row.get("val/accuracy", 0) >= 0.94]
            reached = seen[0]["seconds"] if seen else None
            kept = {key: result.get(key) for key in ("seconds", "flops", "params")}
            return {
                **kept,
                "until_94": reached,
                "test": (result["test"] or {}).get("test/accuracy"),
            }

        table.measure({"part": "cifar", "arm": name}, train, 200)


def parts(table: Table, smoke: bool) -> None:
    steps = 2 if smoke else 20
    batch, cnn = (8, 4) if smoke else (512, 32)
    resnet = ("model=torchvision", *IMAGES, f"train.batch_size={batch}")
    networks = {
        "cnn": ("model=cnn", f"model.width={cnn}", *IMAGES, f"train.batch_size={batch}"),
        "resnet18": resnet,
        "gpt 12x512": gpt(512, 2 if smoke else 12, smoke),
    }
    modes: tuple[bool | str, ...] = (False, "default", "reduce-overhead")
    modes = modes[:2] if smoke else modes
    full = 2 if smoke else 12
    for width, depth, tried in ((768, full, modes), (768, 1, modes), (512, full, modes[1:2])):
        for compile in tried:
            table.measure(
                {
                    "part": "speed",
                    "model": f"gpt {depth}x{width}",
                    "compile": str(mode_of(compile)),
                },
                lambda w=width, d=depth, c=compile: speed(gpt(w, d, smoke), c, steps // 2),
                60,
            )
    for name, overrides in networks.items():
        for compile in modes[:2]:
            table.measure(
                {"part": "step", "model": name, "compile": str(mode_of(compile))},
                lambda o=overrides, c=compile: step_overhead(o, c, steps),
                60,
            )
    start = "growth.start={depth: 0.5}"
    deep = [*gpt(768, full, smoke, "growth=schedule"), "~growth.start", f"+{start}",
            "deepen=stack", f"deepen.add={full // 2}"]  # fmt: skip
    wide = [*resnet, "growth=schedule", "~growth.start", "+growth.start={}", "widen=zero",
            "widen.spaces=layer*.conv1"]  # fmt: skip
    for operator, overrides in (("deeper", deep), ("wider", wide)):
        for compile, cache in ((False, "-"), ("default", "cold"), ("default", "warm")):
            table.measure(
                {"part": "growth", "what": operator, "compile": str(compile), "cache": cache},
                lambda o=overrides, c=compile, w=operator: growth_cost(o, c, w),
                60,
            )
    muon, again = "optimizer=muon", "hardware.activation_checkpointing=true"
    for depth, more in ((full, muon), (1, muon), (full, again)):
        table.measure(
            {"part": "speed", "model": f"gpt {depth}x768", "compile": "default", "with": more},
            lambda d=depth, m=more: speed(gpt(768, d, smoke, m), "default", steps // 2),
            60,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--seconds", type=int, default=540, help="after which no row begins")
    parser.add_argument("--only", default="", help="rows whose names contain this, such as muon")
    parser.add_argument("--cifar", help="folder that torchvision has filled with CIFAR-10")
    arguments = parser.parse_args()
    table = Table(arguments.json, arguments.seconds, arguments.only)
    device = torch.cuda.get_device_name() if CUDA else "CPU"
    table.add({"part": "device", "torch": torch.__version__, "device": device})
    if arguments.cifar:
        cifar(table, arguments.cifar, arguments.smoke)
    else:
        parts(table, arguments.smoke)


if __name__ == "__main__":
    main()
