"""How often an interval of S_eq holds the truth, from a frontier that is known.

    python benchmarks/intervals.py --trials 1500 --seeds 3 5 10

Each trial draws from-scratch runs at four budgets and an arm that saves 20 %; every run has noise
of its own (standard deviation 0.004), and every seed does the same 0.008 to all arms. An end that
lies beyond the measured budgets is told as not known, and counts as holding the truth.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from progtrain.comparison import frontier
from progtrain.comparison.samples import Sample
from progtrain.comparison.saving import Draws, saving

FLOOR, SCALE, POWER = 1.2, 0.5, 0.5  # loss = FLOOR + SCALE * (FLOPs / FULL) ** -POWER
FULL = 1e12  # FLOPs of the whole budget
BUDGETS = (0.35, 0.5, 0.7, 1.0)


def loss_at(flops: float) -> float:
    return FLOOR + SCALE * (flops / FULL) ** -POWER


def sample(name: str, losses: Any, flops: float, seeds: Any) -> Sample:
    values = np.asarray(losses, dtype=np.float64)
    return Sample(name, tuple(seeds), values, np.full(len(values), np.log(flops)))


def trial(
    generator: np.random.Generator, saved: float, noise: float, common: float, n: int = 5
) -> tuple[list[Sample], Sample]:
    """Baselines at four budgets and an arm that saves so much; `common` is what a seed does."""
    shared = generator.normal(0, common, n)

    def seen(loss: float) -> Any:
        return loss + shared + generator.normal(0, noise, n)

    baselines = [sample(f"{b}", seen(loss_at(b * FULL)), b * FULL, range(n)) for b in BUDGETS]
    cost = 0.55 * FULL
    return baselines, sample("grown", seen(loss_at(cost / (1 - saved))), cost, range(n))


def coverage(trials: int, n: int, draws: int) -> tuple[float, float]:
    """Shares of the intervals that hold the truth, and that have an end which is not known."""
    generator, hits, unknown = np.random.default_rng(11), 0, 0
    for index in range(trials):
        baselines, arm = trial(generator, 0.2, noise=0.004, common=0.008, n=n)
        estimate, _ = saving(arm, frontier.budgets(baselines), Draws(draws, index))
        assert estimate is not None
        low = -np.inf if estimate.low is None else estimate.low
        hits += low <= 0.2 <= (np.inf if estimate.high is None else estimate.high)
        unknown += estimate.low is None or estimate.high is None
    return hits / trials, unknown / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--draws", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    arguments = parser.parse_args()
    print("| seeds | trials | the 95 % interval holds the truth | an end is not known |")
    print("|---|---|---|---|")
    for n in arguments.seeds:
        held, unknown = coverage(arguments.trials, n, arguments.draws)
        print(f"| {n} | {arguments.trials} | {held:.1%} | {unknown:.1%} |")


if __name__ == "__main__":
    main()
