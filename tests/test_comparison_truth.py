"""The statistics of a comparison against a truth that is known, and against scipy's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_kit import BUDGETS, FULL, Fake, loss_at, world
from scipy.optimize import curve_fit, isotonic_regression
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from progtrain.comparison import frontier
from progtrain.comparison.compare import compare, to_json
from progtrain.comparison.differences import from_arm, from_frontier, holm
from progtrain.comparison.result import Arm, Comparison, Kind
from progtrain.comparison.samples import Sample, drawn, means
from progtrain.comparison.saving import Draws, saving

SEEDS = tuple(range(5))


def sample(name: str, losses: Any, flops: float, seeds: Any = SEEDS) -> Sample:
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


def coverage(trials: int, n: int, draws: int) -> float:
    """How often the interval holds the truth."""
    generator, hits = np.random.default_rng(11), 0
    for index in range(trials):
        baselines, arm = trial(generator, 0.2, noise=0.004, common=0.008, n=n)
        estimate, _ = saving(arm, frontier.budgets(baselines), Draws(draws, index))
        assert estimate is not None
        low = -np.inf if estimate.low is None else estimate.low
        hits += low <= 0.2 <= (np.inf if estimate.high is None else estimate.high)
    return hits / trials


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.89 <= coverage(100, 5, 400) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 3])
def test_intervals_hold_the_truth_in_95_of_100_cases(n: int) -> None:
    assert 0.93 <= coverage(500, n, 600) <= 0.97
