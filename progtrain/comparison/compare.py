"""From folders of runs to everything that is told of them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path

from progtrain.comparison import verdict
from progtrain.comparison.arms import Group, grouped, same_size, varying
from progtrain.comparison.differences import corrected, from_arm, from_frontier
from progtrain.comparison.fairness import unfair
from progtrain.comparison.frontier import Budgets
from progtrain.comparison.margin import chosen
from progtrain.comparison.prices import Prices, drawn, of_baseline, of_fixed
from progtrain.comparison.read import Found, read_runs
from progtrain.comparison.result import Arm, Comparison, Difference, Kind
from progtrain.comparison.samples import CONFIDENCE, Sample
from progtrain.comparison.saving import Draws, described, saving
from progtrain.errors import ConfigError
from progtrain.report.outcomes import DONE
from progtrain.report.units import assigned
from progtrain.study.file import Study

_STEPS = 0.005  # share by which numbers of steps that count as equal may differ


def compare(
    folders: Sequence[Path],
    margin: float | None,
    title: str = "",
    bootstrap: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the runs in the folders; `margin` is that of non-inferiority, in units of the metric.

    None takes it from the study, or one standard deviation between seeds of the baseline's
    largest budget, with a floor that fits the metric (margin.py). Raises `ConfigError` where
    there are no runs, none came to its end, or they have different metrics.
    """
    found, studies = read_runs(folders)
    metric, mode = _metric_of(found, folders)
    groups = grouped(found)
    margin = _margin(margin, groups, studies, metric, mode)
    draws = Draws(bootstrap, seed)
    prices = [of_baseline(g, groups, mode) if g.kind is Kind.GROWN else None for g in groups]
    fixed = of_fixed(groups, mode)
    arms: list[Arm] = []
    for group, price in zip(groups, prices, strict=True):
        arm = _arm(group, price, fixed, mode, draws)
        arms.append(replace(arm, at_equal_steps=_stepped(arm, group, groups, mode)))
    arms = _judged(arms, metric, mode, margin)
    reasons = unfair(groups, studies)
    frontiers = {price.name: price for price in (*prices, fixed) if price is not None}
    return Comparison(
        title=title or ", ".join(study.title for study in studies) or "Did growing pay?",
        metric=metric,
        mode=mode,
        margin=margin,
        confidence=CONFIDENCE,
        arms=tuple(arms),
        frontiers=tuple(drawn(price, mode) for price in frontiers.values()),
        unfair=reasons,
        verdict=verdict.overall(arms, metric, reasons),
        varying=tuple(varying(found)),
        commands=(*(s.command for s in studies if s.command), _command(folders)),
    )


def _command(folders: Sequence[Path]) -> str:
    if len(folders) == 1:
        return f"progtrain task=compare {assigned('runs', folders[0])}"
    each = (str(folder).replace("'", "\\'") for folder in folders)
    listed = ",".join(f"'{folder}'" for folder in each)
    return f"progtrain task=compare {shlex.quote(f'runs=[{listed}]')}"


def to_json(comparison: Comparison) -> str:
    """Every number of it, as JSON that every parser reads: what is not finite is null."""
    return json.dumps(_plain(comparison), allow_nan=False, ensure_ascii=False, indent=2) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _metric_of(found: Sequence[Found], folders: Sequence[Path]) -> tuple[str, str]:
    done = [each for each in found if each.run.status == DONE and each.run.quality is not None]
    told = ",".join(str(folder) for folder in folders)
    if not done:
        first = next((each.run for each in found if each.run.error), None)
        why = f" {first.folder}: {first.error}" if first else ""
        raise ConfigError(f"runs={told}: none of {len(found)} runs came to its end.{why}")
    each: dict[tuple[str, str], str] = {}
    for one in done:
        each.setdefault((one.metric, one.mode), one.run.folder)
    if len(each) > 1:
        listed = "; ".join(f"{name} ({mode}) in {where}" for (name, mode), where in each.items())
        raise ConfigError(
            f"runs={told} were judged by different metrics: {listed}. Name only runs of one"
            " train.metric."
        )
    return next(iter(each))


def _margin(
    given: float | None,
    groups: Sequence[Group],
    studies: Sequence[Study],
    metric: str,
    mode: str,
) -> float:
    declared = next((study.margin for study in studies if study.margin is not None), None)
    if given is not None or declared is not None:
        return given if given is not None else float(declared or 0.0)
    return chosen(metric, mode, groups)


def _arm(group: Group, prices: Prices | None, fixed: Prices | None, mode: str, draws: Draws) -> Arm:
    """An arm with all that no other grown arm has a say in."""
    sample = group.sample(mode, lambda run: run.flops)
    grown = sample if group.kind is Kind.GROWN else None
    saved, note, saved_fixed = None, "", None
    if grown is not None and prices is None:
        note = "No from-scratch run has its final size."
    if grown is not None and prices is not None:
        saved, note = saving(grown, prices.flops, draws)
    if grown is not None and fixed is not None:
        saved_fixed, _ = saving(grown, fixed.flops, draws)
    timed = group.sample(mode, lambda run: run.seconds) if grown is not None else None
    return Arm(
        name=group.name,
        kind=group.kind,
        settings=group.settings,
        runs=group.runs,
        quality=group.summary(lambda run: run.quality),
        flops=group.summary(lambda run: run.flops),
        seconds=group.summary(lambda run: run.seconds),
        steps=group.summary(lambda run: run.steps),
        params=group.params,
        peak_mib=group.peak_mib,
        saving=saved,
        saving_fixed=saved_fixed,
        saving_note=note,
        at_equal_flops=_at_equal(grown, prices.flops if prices else None, "FLOPs", mode),
        at_equal_seconds=_at_equal(timed, prices.seconds if prices else None, "seconds", mode),
        at_equal_steps=None,
        not_worse=None,
        verdict="",
    )


def _at_equal(
    sample: Sample | None, budgets: Budgets | None, what: str, mode: str
) -> Difference | None:
    if sample is None or budgets is None:
        return None
    against = f"baseline at equal {what}, {described(budgets)}"
    return from_frontier(sample, budgets, _sign(mode), against)


def _stepped(arm: Arm, group: Group, groups: Sequence[Group], mode: str) -> Difference | None:
    """A grown arm minus the best baseline of its size that took as many steps."""
    sample = group.sample(mode, lambda run: run.steps)
    if group.kind is not Kind.GROWN or sample is None or arm.steps is None:
        return None
    others = [
        other
        for each in groups
        if each.kind is Kind.BASELINE and same_size(each.params, group.params)
        if (other := each.sample(mode, lambda run: run.steps)) is not None
        if abs(float(other.costs.mean() - sample.costs.mean())) <= _STEPS
    ]
    if not others:
        return None
    best = min(others, key=lambda other: float(other.losses.mean()))
    return from_arm(sample, best, _sign(mode), f"baseline {best.name} at equal steps")


def _judged(arms: Sequence[Arm], metric: str, mode: str, margin: float) -> list[Arm]:
    """The arms with corrected p values, non-inferiority and words."""
    flops = corrected([arm.at_equal_flops for arm in arms])
    seconds = corrected([arm.at_equal_seconds for arm in arms])
    steps = corrected([arm.at_equal_steps for arm in arms])
    told = [
        replace(
            arm,
            at_equal_flops=flops[place],
            at_equal_seconds=seconds[place],
            at_equal_steps=steps[place],
            not_worse=_not_worse(steps[place], mode, margin),
        )
        for place, arm in enumerate(arms)
    ]
    return [replace(arm, verdict=verdict.of_arm(arm, metric)) for arm in told]


def _not_worse(difference: Difference | None, mode: str, margin: float) -> bool | None:
    """Whether the worse end of the interval is within the margin; None where it is not known."""
    if difference is None:
        return None
    estimate = difference.estimate
    worst = estimate.high if mode == "min" else estimate.low
    return None if worst is None else _sign(mode) * worst < margin


def _sign(mode: str) -> float:
    """Of a difference in the metric, as one in losses."""
    return 1.0 if mode == "min" else -1.0
