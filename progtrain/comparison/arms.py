"""Runs that differ in nothing but the seed make an arm; what an arm is, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from progtrain.comparison.read import Found
from progtrain.comparison.result import Kind, RunOf, Summary
from progtrain.comparison.samples import Sample
from progtrain.report.outcomes import DONE

_SAME_SIZE = 0.01  # share of the parameters by which sizes that count as one may differ


@dataclass(frozen=True)
class Group:
    """An arm before anything is computed from it."""

    name: str
    kind: Kind
    settings: dict[str, str]
    found: tuple[Found, ...]

    @property
    def runs(self) -> tuple[RunOf, ...]:
        return tuple(each.run for each in self.found)

    @property
    def done(self) -> list[Found]:
        """Runs that came to their end with a result, one for each seed."""
        kept: dict[Hashable, Found] = {}
        for place, each in enumerate(self.found):
            run = each.run
            if run.status == DONE and run.quality is not None and run.flops:
                kept.setdefault(f"run {place}" if run.seed is None else run.seed, each)
        return list(kept.values())

    @property
    def repeated(self) -> bool:
        """Whether a seed came to its end twice."""
        seeds = [e.run.seed for e in self.found if e.run.status == DONE and e.run.seed is not None]
        return len(set(seeds)) < len(seeds)

    @property
    def params(self) -> float | None:
        """At the end, of the first run that tells."""
        return next((e.run.params for e in self.done if e.run.params is not None), None)

    @property
    def peak_mib(self) -> float | None:
        return max((e.peak_mib for e in self.found if e.peak_mib is not None), default=None)

    def summary(self, figure: Callable[[RunOf], float | None]) -> Summary | None:
        values = [value for each in self.done if (value := figure(each.run)) is not None]
        if not values:
            return None
        return Summary(len(values), fmean(values), stdev(values) if len(values) > 1 else None)

    def sample(self, mode: str, cost: Callable[[RunOf], float | None]) -> Sample | None:
        """Losses and log costs by seed; None where no run came to its end with both."""
        done = [(each, spent) for each in self.done if (spent := cost(each.run))]
        if not done:
            return None
        quality = np.array([each.run.quality for each, _ in done], dtype=np.float64)
        seeds = (e.run.seed if e.run.seed is not None else e.run.folder for e, _ in done)
        return Sample(
            self.name,
            tuple(seeds),
            quality if mode == "min" else 1 - quality,
            np.log(np.array([spent for _, spent in done], dtype=np.float64)),
        )


def varying(found: Sequence[Found]) -> list[str]:
    """The settings in which runs differ, without the seed.

    One that only some command lines name counts as different; a run that failed early may not
    tell its choices.
    """
    names = list(dict.fromkeys(name for each in found for name in each.settings))

    def differs(name: str) -> bool:
        values = {each.settings[name] for each in found if name in each.settings}
        missing = any(name not in each.settings for each in found)
        return len(values) > 1 or (missing and any(name in each.overridden for each in found))

    return [name for name in names if differs(name)]


def grouped(found: Sequence[Found]) -> list[Group]:
    """The arms, in the order in which their first runs were found."""
    names = varying(found)
    runs: dict[tuple[str, ...], list[Found]] = {}
    several = len({each.study for each in found if each.study}) > 1
    for each in found:
        cells = tuple(each.settings.get(name, "") for name in names)
        name = f"{each.study}/{each.arm}" if several else each.arm
        runs.setdefault((name,) if each.arm else ("", *cells), []).append(each)
    groups = [_group(key, each, names) for key, each in runs.items()]
    grown = [group.params for group in groups if group.kind is Kind.GROWN]
    return list(_with_baselines(groups, [params for params in grown if params is not None]))


def same_size(one: float | None, other: float | None) -> bool:
    """Whether two numbers of parameters are within 1 %."""
    return one is not None and other is not None and abs(one - other) <= _SAME_SIZE * other


def _group(key: tuple[str, ...], found: Sequence[Found], names: Sequence[str]) -> Group:
    settings = {name: found[0].settings[name] for name in names if name in found[0].settings}
    told = " ".join(f"{name}={value}" for name, value in settings.items()) or "all runs"
    kind = found[0].kind
    if kind is None:
        kind = Kind.GROWN if any(each.grows for each in found) else Kind.FIXED
    return Group(key[0] or told, kind, settings, tuple(found))


def _with_baselines(groups: Sequence[Group], grown: Sequence[float]) -> Iterator[Group]:
    """What does not grow and ends with the size of a grown arm is a baseline."""
    for group in groups:
        declared = group.found[0].kind is not None
        alike = any(same_size(group.params, params) for params in grown)
        if not declared and group.kind is Kind.FIXED and alike:
            yield Group(group.name, Kind.BASELINE, group.settings, group.found)
        else:
            yield group
