"""progtrain beside gromo 0.1.0 on scikit-learn's digits: one MLP, grown at the same moments.

    python -m venv .gromo && .gromo/bin/pip install . gromo==0.1.0
    .gromo/bin/python benchmarks/gromo_digits.py --seeds 5

Every arm goes from 64-16-16-10 to 64-64-64-10 in three growths at 20, 40 and 60 % of the steps,
from the same weights, on the same batches, with the same AdamW and learning rate (warmup 5 %,
constant, linear to zero from 70 %). Half of the 1,797 images are for training, half are the test.
Beside them the network of the end size from scratch, at equal steps and at the FLOPs of widen=zero
with its own complete schedule, and the network of the start size.

FLOPs: those of every training step by `training_flops`, and what torch's counter sees in the
growths of a short run (eigh and svd by the formulas of Golub & Van Loan). Seconds are CPU time of
one thread. `jump` is the mean change of the loss on the growth batch at a growth.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from gromo_arms import GROMO, OURS, Arm, Ours, an_mlp, arm
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from progtrain.data.digits import Digits
from progtrain.flops import training_flops
from progtrain.growth.newborn import evaluate
from progtrain.optimizers.adamw import AdamW
from progtrain.run import Probe

SAMPLES = 256  # that a growth looks at
MOMENTS = {0.2: 32, 0.4: 48, 0.6: 64}  # share of the steps → units of both hidden layers
START, END = 16, 64
SCRATCH = ("scratch, end size", "scratch, end size, equal FLOPs", "scratch, start size")


@dataclass(frozen=True)
class Plan:
    """What all arms share."""

    steps: int
    lr: float
    batch: int = 64

    @property
    def moments(self) -> dict[int, int]:
        """Step → units of both hidden layers."""
        return {round(share * self.steps): width for share, width in MOMENTS.items()}


@dataclass(frozen=True)
class Images:
    """Training and test images, flat and normalised, with labels."""

    train: Probe
    test: Probe

    @staticmethod
    def load() -> Images:
        sets = Digits(validation=0.5).load()
        halves = (sets.train, sets.validation)
        return Images(*(Probe(sets.normalise(h.x).flatten(1), h.y) for h in halves))


@dataclass(frozen=True)
class Result:
    """One run."""

    accuracy: float
    loss: float  # on the test images
    jump: float  # of the loss on the growth batch at a growth, mean
    seconds: float
    growing: float  # of them, in growths


def multiplier(progress: float) -> float:
    return min(1.0, progress / 0.05, (1 - progress) / 0.3)


def loss_on(learner: Arm | Ours, images: Probe) -> float:
    return float(F.cross_entropy(evaluate(learner.model, images.x), images.y))


def begin(name: str, plan: Plan, seed: int) -> Arm | Ours:
    torch.manual_seed(seed)
    width = END if name in SCRATCH[:2] else START
    return arm(name, width, AdamW(lr=plan.lr))


def step(learner: Arm | Ours, x: Tensor, y: Tensor, rate: float) -> None:
    learner.optimizer.set_multiplier(rate, {})
    learner.optimizer.zero_grad()
    F.cross_entropy(learner.model(x), y).backward()
    learner.optimizer.step()


def train(name: str, plan: Plan, seed: int, images: Images, count: Any = None) -> Result:
    """One arm once; `count` is a context around every growth."""
    learner, draws = begin(name, plan, seed), torch.Generator().manual_seed(seed)
    data, growing, jumps = images.train, 0.0, list[float]()
    looked_at = torch.randperm(len(data.x), generator=draws)[:SAMPLES]
    probe = Probe(data.x[looked_at], data.y[looked_at])
    begun = time.process_time()
    for now in range(plan.steps):
        if now in plan.moments and name not in SCRATCH:
            before, at = loss_on(learner, probe), time.process_time()
            with count or nullcontext():
                learner.grow(plan.moments[now], probe)
            growing += time.process_time() - at
            jumps.append(loss_on(learner, probe) - before)
        index = torch.randint(len(data.x), (plan.batch,), generator=draws)
        step(learner, data.x[index], data.y[index], multiplier((now + 0.5) / plan.steps))
    seconds = time.process_time() - begun
    right = evaluate(learner.model, images.test.x).argmax(1) == images.test.y
    jump = statistics.mean(jumps) if jumps else 0.0
    accuracy = float(right.double().mean())
    return Result(accuracy, loss_on(learner, images.test), jump, seconds, growing)


def flops(name: str, plan: Plan, images: Images) -> tuple[float, float]:
    """Of the steps, and of the growths."""
    width, steps = END if name in SCRATCH[:2] else START, 0.0
    for now in range(plan.steps):
        width = width if name in SCRATCH else plan.moments.get(now, width)
        steps += plan.batch * training_flops(an_mlp(width), images.train.x)
    counter = FlopCounterMode(display=False, custom_mapping=SOLVERS)
    train(name, replace(plan, steps=30), 0, images, counter)
    return steps, float(counter.get_total_flops())


def _svd(n: int, m: int) -> int:
    return 4 * m * m * n + 8 * m * n * n + 9 * n**3


SOLVERS = {
    torch.ops.aten._linalg_eigh: lambda a, *_, **__: 9 * a[-1] ** 3,
    torch.ops.aten._linalg_svd: lambda a, *_, **__: _svd(*sorted(a[-2:])),
}


def row(name: str, plan: Plan, cost: tuple[float, float], results: list[Result]) -> str:
    """A line of the table."""

    def of(field: str, scale: float, digits: int) -> str:
        values = [scale * getattr(result, field) for result in results]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"

    jump = "–" if name in SCRATCH else f"{statistics.mean(r.jump for r in results):+.3f}"
    seconds = statistics.median(r.seconds for r in results)
    growing = statistics.median(r.growing for r in results)
    total, share = sum(cost) / 1e9, cost[1] / sum(cost)
    cells = [name, str(plan.steps), of("accuracy", 100, 2), of("loss", 1, 3), jump]
    return f"| {' | '.join(cells)} | {total:.2f} | {share:.0%} | {seconds:.2f} | {growing:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args()
    if importlib.util.find_spec("gromo") is None:
        raise SystemExit("gromo is missing: see the top of benchmarks/gromo_digits.py")
    warnings.filterwarnings("ignore", module="gromo")
    torch.set_num_threads(1)
    images, plan = Images.load(), Plan(options.steps, options.lr)
    print(f"torch {torch.__version__}, lr {plan.lr}, {options.seeds} seeds, mean ± sd\n")
    print("| arm | steps | test accuracy, % | test loss | jump | GFLOP | growths | s | s growing |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    fewer = sum(flops("widen=zero", plan, images)) / sum(flops(SCRATCH[0], plan, images))
    for name in (*SCRATCH, *GROMO, *OURS):
        chosen = replace(plan, steps=round(fewer * plan.steps)) if name == SCRATCH[1] else plan
        results = [train(name, chosen, seed, images) for seed in range(options.seeds)]
        print(row(name, chosen, flops(name, chosen, images), results), flush=True)


if __name__ == "__main__":
    main()
