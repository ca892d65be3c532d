"""The statistics of a comparison against a truth that is known, and against scipy's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from comparison_kit import BUDGETS, FULL, intervals, loss_at
from scipy.optimize import curve_fit, isotonic_regression
from scipy.stats import ttest_1samp, ttest_ind, ttest_rel

from progtrain.comparison import frontier
from progtrain.comparison.differences import from_arm, from_frontier, holm
from progtrain.comparison.samples import Sample, drawn, means
from progtrain.comparison.saving import Draws, saving

SEEDS = tuple(range(5))
trial, coverage = intervals.trial, intervals.coverage


def sample(name: str, losses: Any, flops: float, seeds: Any = SEEDS) -> Sample:
    return intervals.sample(name, losses, flops, seeds)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    assert 0.89 <= coverage(100, 5, 400)[0] <= 1.0


@pytest.mark.slow
def test_intervals_hold_the_truth_in_95_of_100_cases() -> None:
    """benchmarks/intervals.py prints the shares; the error of 500 cases is 1 %."""
    assert 0.93 <= coverage(500, 5, 600)[0] <= 0.97


def test_a_saving_is_recovered_and_a_seed_that_arms_share_cancels() -> None:
    baselines, arm = trial(np.random.default_rng(0), 0.3, noise=1e-4, common=0.05)
    estimate, note = saving(arm, frontier.budgets(baselines), Draws())
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    assert not note and estimate.value == pytest.approx(0.3, abs=0.02)
    apart = [replace(one, seeds=tuple(f"{one.name}{s}" for s in SEEDS)) for one in baselines]
    alone, _ = saving(arm, frontier.budgets(apart), Draws())
    assert alone is not None and alone.low is not None
    assert alone.value == estimate.value
    assert estimate.value - estimate.low < 0.1 * (alone.value - alone.low)


def test_the_law_is_that_of_a_least_squares_fit_and_lines_are_an_isotonic_regression() -> None:
    baselines, _ = trial(np.random.default_rng(1), 0.0, noise=0.003, common=0.0)
    chosen = frontier.budgets(baselines)
    losses, costs = means(baselines)
    curve = frontier.fitted(chosen, losses, costs)
    assert chosen.form == "power law" and curve.scale is not None and curve.power is not None

    def law(x: Any, floor: float, scale: float, power: float) -> Any:
        return floor + scale * np.exp(-power * (x - curve.origin))

    limits = ([0, 0, 0.01], [9, 9, 5])
    fit, _ = curve_fit(law, costs[0], losses[0], p0=[1, 0.5, 0.5], bounds=limits)
    at = np.linspace(costs.min(), costs.max(), 9)
    mine = [float(curve.loss(np.array([x]))[0]) for x in at]
    assert mine == pytest.approx(list(law(at, *fit)), abs=1e-5)
    back = [float(curve.cost(np.array([y]))[0]) for y in mine]
    assert back == pytest.approx(list(at), abs=1e-9)
    steep = np.array([[0.4, 0.3, 0.2, 0.05]])  # lines would go below 0: a loss does not
    low = frontier.fitted(chosen, steep, costs)
    fit, _ = curve_fit(law, costs[0], steep[0], p0=[0.1, 0.2, 1], bounds=limits)
    assert low.floor is not None and float(low.floor[0]) == pytest.approx(0, abs=1e-9)
    assert list(low.losses[0]) == pytest.approx(list(law(costs[0], *fit)), abs=1e-4)
    bumpy = [sample(str(i), [y] * n, 10.0 ** (i + 1), range(n))
             for i, (y, n) in enumerate([(1.0, 2), (1.2, 5), (0.9, 3)])]  # fmt: skip
    lines = frontier.fitted(frontier.budgets(bumpy), *means(bumpy))
    expected = isotonic_regression([1.0, 1.2, 0.9], weights=[2, 5, 3], increasing=False).x
    assert list(lines.losses[0]) == pytest.approx(list(expected))
    halfway = np.log(np.array([10**2.5]))
    assert float(lines.loss(halfway)[0]) == pytest.approx((expected[1] + expected[2]) / 2)


def test_a_law_that_misses_a_budget_gives_way_to_lines() -> None:
    shape = (2.0, 1.99, 1.3, 1.29)
    stairs = [sample(str(b), np.array([y] * 5) + 1e-4 * np.arange(5), b * FULL)
              for b, y in zip(BUDGETS, shape, strict=True)]  # fmt: skip
    assert frontier.budgets(stairs).form == "lines"


def test_differences_are_those_of_scipy() -> None:
    generator = np.random.default_rng(2)
    one, two = generator.normal(1, 0.1, 5), generator.normal(1.1, 0.3, 5)
    paired = from_arm(sample("a", two, FULL), sample("b", one, FULL), 1.0, "b")
    truth = ttest_rel(two, one)
    ends = truth.confidence_interval()
    assert paired.p == pytest.approx(truth.pvalue) and paired.paired == 5
    found = (paired.estimate.low, paired.estimate.high)
    assert found == pytest.approx((ends.low, ends.high))
    others = sample("a", two, FULL, (5, 6, 7, 8, 9))
    welch = from_arm(others, sample("b", one, FULL), -1.0, "b")
    truth = ttest_ind(one, two, equal_var=False)
    ends = truth.confidence_interval()
    assert welch.p == pytest.approx(truth.pvalue) and welch.paired == 0
    found = (welch.estimate.low, welch.estimate.high)
    assert found == pytest.approx((ends.low, ends.high))
    less = from_arm(sample("a", two, FULL), sample("b", one[1:], FULL, (1, 2, 3, 4)), 1.0, "b")
    assert less.p == pytest.approx(ttest_rel(two[1:], one[1:]).pvalue) and less.paired == 4


def test_at_equal_flops_a_difference_from_a_budget_itself_is_the_paired_test() -> None:
    generator = np.random.default_rng(4)
    runs = generator.normal(0, 0.01, (3, 5))
    low, high = sample("low", 2 + runs[0], FULL / 2), sample("high", 1 + runs[1], FULL)
    arm = sample("arm", 0.99 + runs[2], FULL)
    found = from_frontier(arm, frontier.budgets([low, high]), 1.0, "")
    assert found is not None
    truth = ttest_1samp(arm.losses - high.losses, 0)
    assert found.p == pytest.approx(truth.pvalue)
    assert found.estimate.value == pytest.approx(float((arm.losses - high.losses).mean()))
    beyond = sample("arm", arm.losses, 1.3 * FULL)
    assert from_frontier(beyond, frontier.budgets([low, high]), 1.0, "") is None


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3, 0.03 * 2, and 0.04 may not be less than the one before."""
    told = holm([0.03, None, 0.01, 0.04, 0.02])
    assert [p for p in told if p is not None] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert told[1] is None and holm([0.6, 0.7]) == [1.0, 1.0]


def test_draws_are_as_wide_as_a_t_interval() -> None:
    """A plain bootstrap of five seeds would span two thirds of it."""
    values = np.array([1.0, 1.3, 0.8, 1.1, 0.9])
    one = sample("a", values, FULL)
    made = drawn([one], 200_000, np.random.default_rng(0))
    assert made is not None
    ends = ttest_1samp(values, 0).confidence_interval()
    found = np.quantile(made[0][:, 0], [0.025, 0.975])
    assert list(found) == pytest.approx([ends.low, ends.high], abs=0.01)
    assert drawn([one, sample("b", [1.0], FULL, (0,))], 10, np.random.default_rng(0)) is None


def test_beyond_the_budgets_there_is_no_saving_and_it_is_said() -> None:
    baselines, arm = trial(np.random.default_rng(5), 0.2, 0.001, 0.0)
    chosen = frontier.budgets(baselines)
    better = replace(arm, losses=arm.losses - 1)
    found, note = saving(better, chosen, Draws())
    assert found is None and "Train from scratch longer" in note and "say 56% saved" in note
    found, note = saving(replace(arm, losses=arm.losses + 1), chosen, Draws())
    assert found is None and "Add a smaller budget" in note
    found, note = saving(arm, frontier.budgets(baselines[:1]), Draws())
    assert found is None and "two budgets" in note
    near = replace(arm, losses=baselines[3].losses + 0.01 * np.array([1, -1, 2, -2, 0.5]))
    found, note = saving(near, chosen, Draws())
    assert found is not None and found.low is not None
    wide = replace(near, losses=near.losses + 0.1 * np.array([1, -1, 2, -2, 0]))
    found, note = saving(wide, chosen, Draws())
    assert found is not None and found.high is None and "upper end" in note
    single = replace(arm, seeds=(0,), losses=arm.losses[:1], costs=arm.costs[:1])
    found, note = saving(single, chosen, Draws())
    assert found is not None and found.low is None and "one seed only of grown" in note


def test_the_best_fixed_size_is_never_lifted_by_a_worse_size() -> None:
    good = [sample(str(b), [loss_at(b * FULL)] * 2, b * FULL, (0, 1)) for b in BUDGETS]
    worse = sample("worse", [loss_at(0.6 * FULL) + 0.02] * 2, 0.6 * FULL, (0, 1))
    better = sample("better", [loss_at(0.6 * FULL) - 0.02] * 2, 0.6 * FULL, (0, 1))
    assert frontier.undominated([*good, worse]) == [0, 1, 2, 3]
    assert 4 in frontier.undominated([*good, better])
    doubled = sample("tuned", [1.0] * 2, 0.5 * FULL * 1.01, (0, 1))
    assert frontier.best_at_each([*good, doubled]) == [0, 4, 2, 3]
