"""What a growth in width costs where its graphs are new, on disk, or compiled ahead.

    python benchmarks/ahead.py                      both networks, one round
    python benchmarks/ahead.py --only gpt --rounds 5

Each round grows the same network three times: with inductor's cache cold for what is new (the start
network's graphs are there), with it warm, and with it cold and hardware.compile_ahead=true.
`growth_s` is the transaction, `compile_s` the first step after it less a later one, `hits` and
`misses` are inductor's for that step, `ask_s` is what the run itself spends on finding out what is
next. The process works and is stopped in turns: `slower` is the time of steps beside it over that
of steps alone, `ahead_s` what it took without its stops. Medians come last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu import CUDA, IMAGES, gpt, parts_of, seconds_of, stepping
from gpu_table import Table
from overhead import assemble
from torch._dynamo.utils import counters
from torch._inductor.utils import clear_caches

from progtrain.ahead.reporter import compiling_ahead
from progtrain.growth.transaction import transact
from progtrain.run import Stage
from progtrain.stepper import Stepper

_TURN = 5  # steps


def cases(smoke: bool) -> dict[str, list[str]]:
    """Two growths in width; on a CPU of networks that it can train."""
    batch = "512" if CUDA else "8"
    wide = ["growth=schedule", "growth.stages.deeper=null", "~growth.start", "widen=zero"]
    images = [*wide, *IMAGES, f"train.batch_size={batch}"]
    half, full = "+growth.start={width: 0.5}", "+growth.start={}"
    language = (
        gpt(768, 12, smoke) if CUDA or smoke else [*gpt(128, 4, smoke=True), "model.width=128"]
    )
    resnet = ["model=torchvision", full, "widen.spaces=layer*.conv1"]
    cnn = ["model=cnn", "model.width=4", half]
    return {"gpt": [*language, *wide, half], "resnet18": [*images, *(cnn if smoke else resnet)]}


def use(folder: Path) -> None:
    """Inductor's cache lies there from now on."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    clear_caches()


def grown(overrides: list[str], ahead: bool) -> dict[str, Any]:
    """One growth, from the start."""
    settings = ["warmup=none", f"hardware.compile_ahead={ahead}"]
    run, setup = assemble(parts_of([*overrides, *settings], True, never=False))
    with compiling_ahead(run, setup) as setup:
        stepper = Stepper(run, setup)
        step = stepping(stepper)
        seconds_of(2, step)
        follower: Any = setup.reporter
        follower = follower.reporters[0] if ahead else None
        row = beside(step, follower) if ahead else {}
        stage = setup.growth.upcoming(run)
        assert isinstance(stage, Stage)
        row["growth_s"] = seconds_of(1, lambda: transact(run, setup, stage, stepper.controls))
        stepper.renew()
        counters.clear()
        first = seconds_of(1, step)
        row["hits"] = counters["inductor"]["fxgraph_cache_hit"]
        row["misses"] = counters["inductor"]["fxgraph_cache_miss"]
        row["compile_s"] = first - min(seconds_of(1, step) for _ in range(3))
        if ahead:
            row["ask_s"] = seconds_of(1, lambda: follower.ask(run))
    return row


def beside(step: Callable[[], None], follower: Any) -> dict[str, Any]:
    """Train until the process beside it is done; it works and is stopped in turns."""
    step()  # starts it
    group = follower._process._process.pid
    took, ratios = 0.0, list[float]()
    while follower.busy:
        with_it = seconds_of(_TURN, step)
        took += with_it * _TURN
        if follower.busy:
            os.killpg(group, signal.SIGSTOP)
            ratios.append(with_it / seconds_of(_TURN, step))
            os.killpg(group, signal.SIGCONT)
    return {"ahead_s": took, "turns": len(ratios), "slower": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="gpt or resnet18")
    arguments = parser.parse_args()
    table = Table(arguments.json, seconds=3600)
    device = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    table.add({"torch": torch.__version__, "device": device})
    for name, overrides in cases(arguments.smoke).items():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as folder:
                measure(table, name, overrides, Path(folder), arguments.rounds)


def measure(table: Table, name: str, overrides: list[str], folder: Path, rounds: int) -> None:
    """The three ways in turns, each with a cache of its own."""
    ways: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": [], "ahead": []}
    use(folder / "start")
    run, setup = assemble(parts_of([*overrides, "warmup=none"], True, never=False))
    seconds_of(1, stepping(Stepper(run, setup)))
    for number in range(rounds):
        for way, rows in ways.items():
            cache = folder / ("cold" if way == "warm" else way) / str(number)
            if way != "warm":
                shutil.copytree(folder / "start", cache)
            use(cache)
            rows.append(grown(overrides, way == "ahead"))
            table.add({"network": name, "cache": way, **rows[-1]})
    for way, rows in ways.items():
        median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        table.add({"network": name, "cache": way, "rounds": rounds, **median})


if __name__ == "__main__":
    main()
