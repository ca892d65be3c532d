"""Comparisons made by hand, for tests of pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

from progtrain.comparison.result import (
    Arm,
    Comparison,
    Difference,
    Estimate,
    Frontier,
    Growth,
    Kind,
    Row,
    RunOf,
    Summary,
    Unfair,
)

METRIC = "val/accuracy"


def run(name: str, seed: int, quality: float, budget: float, grows: bool) -> RunOf:
    """A run of 40 evaluations that ends at `quality` after `budget` FLOPs."""
    share = [(i + 1) / 40 for i in range(40)]
    costs = [s * s if grows else s for s in share]
    rows = tuple(
        Row(
            step=round(1000 * s),
            flops=budget * c,
            seconds=90 * c + seed,
            quality=0.1 + (quality - 0.1) * (1 - math.exp(-6 * s)) / (1 - math.exp(-6)),
        )
        for s, c in zip(share, costs, strict=True)
    )
    stages = [("deeper", 0.3, 12_000.0), ("wider", 0.6, 50_000.0)] if grows else []
    growths = tuple(
        Growth(stage, round(1000 * s), budget * s * s, 90 * s * s + seed, params)
        for stage, s, params in stages
    )
    folder = f"outputs/sweep/{name}-{seed}"
    size = 50_000.0 if grows else 20_000.0
    last = rows[-1].seconds
    return RunOf(folder, seed, "done", quality, budget, last, 1000.0, size, rows, growths)


def summary(values: Sequence[float]) -> Summary | None:
    if not values:
        return None
    return Summary(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


def arm(
    name: str,
    kind: Kind,
    quality: float,
    budget: float = 1e12,
    seeds: int = 3,
    settings: dict[str, str] | None = None,
) -> Arm:
    """An arm whose seeds lie 0.004 apart."""
    grows = kind is Kind.GROWN
    runs = tuple(run(name, s, quality + 0.004 * (s - 1), budget, grows) for s in range(seeds))
    saving = Estimate(0.23, 0.11, 0.34) if grows and seeds > 1 else None
    lower, higher = (quality - 0.95, quality - 0.93) if seeds > 1 else (None, None)
    difference = Difference(
        "baseline at equal FLOPs, from the fitted frontier",
        Estimate(quality - 0.94, lower, higher),
        0.013 if seeds > 1 else None,
        0.026 if seeds > 1 else None,
        seeds if seeds > 1 else 0,
    )
    return Arm(
        name=name,
        kind=kind,
        settings=settings or {"growth": name},
        runs=runs,
        quality=summary([each.quality for each in runs if each.quality is not None]),
        flops=summary([budget for _ in runs]),
        seconds=summary([each.seconds for each in runs if each.seconds is not None]),
        steps=summary([1000.0 for _ in runs]),
        params=50_000.0,
        peak_mib=812.5,
        saving=saving,
        saving_fixed=replace(saving, value=0.07, low=-0.05) if saving else None,
        saving_note="" if grows else "It is what the others are compared with.",
        at_equal_flops=difference if grows else None,
        at_equal_seconds=difference if grows else None,
        at_equal_steps=difference if grows else None,
        not_worse=quality > 0.93 if grows else None,
        verdict="saves 23 % [11, 34] of the compute at equal accuracy" if grows else "",
    )


def frontier(name: str, arms: Sequence[Arm]) -> Frontier:
    points = tuple(
        (each.flops.mean, each.quality.mean, each.name)
        for each in arms
        if each.flops and each.quality
    )
    xs = [min(p[0] for p in points) * 1.15**i for i in range(12)]
    curve = tuple((x, 1 - (0.02 + 60.0 * x**-0.25 * 0.9)) for x in xs)
    return Frontier(name, "power law", 0.02, 54.0, 0.25, points, curve)


def comparison(*arms: Arm, mode: str = "max") -> Comparison:
    """All of it; baselines and fixed sizes make the frontiers."""
    baselines = [each for each in arms if each.kind is Kind.BASELINE]
    fixed = [each for each in arms if each.kind is not Kind.GROWN]
    frontiers = [frontier("baseline", baselines)] if baselines else []
    frontiers += [frontier("best fixed size", fixed)] if len(fixed) > len(baselines) else []
    return Comparison(
        title="Does growing pay on Fashion-MNIST?",
        metric=METRIC,
        mode=mode,
        margin=0.005,
        confidence=0.95,
        arms=arms,
        frontiers=tuple(frontiers),
        unfair=(
            Unfair(
                "undecayed",
                "The baseline ends while its learning rate is still high; let it decay fully.",
                ("baseline",),
            ),
        ),
        verdict="Growing paid: sequential reaches the accuracy of the baseline with 23 %"
        " [11, 34] less compute, and is not worse at equal steps.",
        varying=("growth",),
        commands=("progtrain -m growth=none,sequential seed=0,1,2",),
    )


def three() -> Comparison:
    """A baseline at several budgets, a smaller network, two that grow."""
    return comparison(
        arm("baseline", Kind.BASELINE, 0.940, 1.0e12),
        arm("baseline 0.7 T", Kind.BASELINE, 0.928, 0.7e12),
        arm("baseline 0.5 T", Kind.BASELINE, 0.915, 0.5e12),
        arm("baseline 0.35 T", Kind.BASELINE, 0.899, 0.35e12),
        arm("half width", Kind.FIXED, 0.912, 0.4e12),
        arm("growth=sequential", Kind.GROWN, 0.944, 0.8e12),
        arm("growth=plateau warmup=linear_ramp", Kind.GROWN, 0.931, 0.72e12),
    )


def many(count: int = 60) -> Comparison:
    """A grid of growth and warmup at several lengths, beside a baseline."""
    arms = [arm("baseline", Kind.BASELINE, 0.940, 1e12), arm("half", Kind.FIXED, 0.915, 0.5e12)]
    warmups = ("none", "linear_ramp", "cosine_ramp", "zero_init", "lr", "frozen_host")
    for index in range(count - 2):
        growth = ("plateau", "sequential", "schedule", "budget", "proactive")[index % 5]
        warmup, lr = warmups[index // 5 % 6], ("0.003", "0.001")[index // 30]
        settings = {"growth": growth, "warmup": warmup, "optimizer.lr": lr}
        name = " ".join(f"{key}={value}" for key, value in settings.items())
        quality = 0.90 + 0.05 * math.sin(index * 1.7) ** 2
        budget = 5e11 * (1 + index % 7 / 7)
        arms.append(arm(name, Kind.GROWN, quality, budget, settings=settings))
    told = comparison(*arms)
    return replace(told, varying=("growth", "warmup", "optimizer.lr"))
