"""What progtrain costs beside a hand-written PyTorch loop, and what a growth costs.

    make bench        or        python benchmarks/overhead.py --rounds 31 --steps 100

Both loops train the same model on the same data with the same batch size, optimizer and learning
rate, in turns in one process; the ratio is taken round by round and its median printed; `least` is
the ratio of the quickest rounds, which neighbours on the same machine disturb least. A growth is
the whole transaction (trace, copy, edit, fill, checks on the probe batch, optimizer), without the
two evaluations that report its effect, in units of one step of the network before it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch.nn import functional as F

from progtrain.build import Parts, build
from progtrain.clock import Duration
from progtrain.growth.controls import Controls
from progtrain.growth.plan import plan
from progtrain.growth.transaction import transact
from progtrain.machine import Machine
from progtrain.run import Run, Stage
from progtrain.setup import Setup
from progtrain.start import batches_of, new_run, new_setup
from progtrain.steps import train_step

CONF = Path(__file__).parent.parent / "conf"


def parts_for(model: str) -> Parts:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(compose("config", [f"model={model}", "growth=schedule", "~growth.start"]))


def assemble(parts: Parts) -> tuple[Run, Setup]:
    """A run and its setup, without files, screen or checkpoints."""
    never = "1000000steps"
    train = replace(parts.train, duration=never, evaluate_every=never)
    parts = replace(parts, train=train, checkpoint=replace(parts.checkpoint, every=never))
    engine = parts.hardware.open()
    batches = batches_of(parts, engine)
    return new_run(parts, engine, batches), new_setup(parts, engine, batches)


def by_hand(setup: Setup, seconds: Callable[[], float]) -> Callable[[int], float]:
    """The loop a PyTorch user writes: shuffled batches from memory, AdamW, a schedule."""
    torch.manual_seed(0)
    model = setup.model_factory({}).train()
    decays = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decays, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 100))
    data, size = setup.batches.sets, setup.train.batch_size

    def train(steps: int) -> float:
        order, position = torch.randperm(len(data.train)), 0
        begun = seconds()
        for _ in range(steps):
            if position + size > len(order):
                order, position = torch.randperm(len(data.train)), 0
            index = order[position : position + size]
            position += size
            x, y = data.normalise(data.train.x[index]), data.train.y[index]
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x).flatten(0, -2), y.flatten()).backward()
            optimizer.step()
            scheduler.step()
        return seconds() - begun

    return train


def by_progtrain(run: Run, setup: Setup, seconds: Callable[[], float]) -> Callable[[int], float]:
    def train(steps: int) -> float:
        end = run.clock.step + steps
        machine = Machine(run, replace(setup, interrupted=lambda: run.clock.step >= end))
        begun = seconds()
        machine.go()
        return seconds() - begun

    return train


def only_steps(run: Run, setup: Setup, seconds: Callable[[], float]) -> Callable[[int], float]:
    """progtrain's optimizer step without the stage machine around it."""

    def train(steps: int) -> float:
        controls = Controls(run.model, run.events, setup.warmup)
        begun = seconds()
        for _ in range(steps):
            train_step(run, setup, controls, {})
            run.clock.tick(run.batch_size, 0.0, 0.0)
        return seconds() - begun

    return train


def step_ratio(model: str, rounds: int, steps: int, seconds: Callable[[], float]) -> float:
    """Print the ratios of one model; the median seconds of a progtrain step."""
    parts = replace(parts_for(model), growth=_Never())
    run, setup = assemble(parts)
    loops = {
        "hand": by_hand(setup, seconds),
        "progtrain": by_progtrain(run, setup, seconds),
        "step only": only_steps(run, setup, seconds),
    }
    for loop in loops.values():
        loop(max(20, steps // 10))
    times = {name: list[float]() for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name].append(loop(steps) / steps)
    ratios = {
        name: [a / b for a, b in zip(each, times["hand"], strict=True)]
        for name, each in times.items()
    }
    for name in loops:
        median = statistics.median(ratios[name])
        spread = f"{min(ratios[name]):.3f} to {max(ratios[name]):.3f}"
        micro = statistics.median(times[name]) * 1e6
        least = min(times[name]) / min(times["hand"])
        print(f"  {model:<7} {name:<10} {micro:9.0f} µs a step   × {median:.3f}   ({spread})"
              f"   least × {least:.3f}")  # fmt: skip
    return statistics.median(times["progtrain"])


class _Never:
    start: Mapping[str, int | float] = {}
    consolidate = Duration.parse("0steps", "consolidate")
    keep_if = None

    def upcoming(self, run: Run) -> None:
        return None

    def next(self, run: Run) -> None:
        return None


def growth_cost(model: str, rounds: int, step_seconds: float, seconds: Callable[[], float]) -> None:
    """Print what each kind of growth costs, in steps of the network before it."""
    parts = parts_for(model)
    for operator in ("deeper", "wider"):
        taken: list[float] = []
        for _ in range(rounds):
            run, setup = assemble(parts)
            run.model.train()
            controls = Controls(run.model, run.events, setup.warmup)
            for _ in range(3):
                train_step(run, setup, controls, {})
            plan(run, setup)  # counts FLOPs of the shapes to come, as every run does at its start
            stage = Stage(operator, parts.growth.stages[operator].operator)  # type: ignore[attr-defined]
            begun = seconds()
            transact(run, setup, stage, controls)
            taken.append(seconds() - begun)
        median = statistics.median(taken)
        print(
            f"  {model:<7} {operator:<10} {median * 1e3:9.2f} ms  "
            f" {median / step_seconds:6.1f} steps"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="more measure the neighbours too")
    parser.add_argument("--wall", action="store_true", help="wall time instead of CPU time")
    arguments = parser.parse_args()
    seconds = time.perf_counter if arguments.wall else time.process_time
    clock = "wall" if arguments.wall else "CPU"
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {clock} time")
    print(f"median of {arguments.rounds} rounds of {arguments.steps} steps, hand-written loop = 1")
    cost = {m: step_ratio(m, arguments.rounds, arguments.steps, seconds) for m in ("mlp", "cnn")}
    print("one growth, in steps of the network before it")
    for model, each in cost.items():
        growth_cost(model, arguments.rounds, each, seconds)


if __name__ == "__main__":
    main()
