"""What a study declares before its first run: arms, seeds, the metric and what counts as worse.

A declaration is a YAML of `conf/study`, or of a folder of the user's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from progtrain.comparison.result import Kind
from progtrain.errors import ConfigError, did_you_mean, report

_FIELDS = ("name", "title", "metric", "margin", "seeds", "common", "arms")
_OF_ARM = ("kind", "set", "grid", "budgets")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes a directory
_LAST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but the seed."""

    name: str
    kind: Kind
    overrides: tuple[str, ...]  # settings as on the command line, without those of all arms
    budget: float = 1.0  # of the study's train.duration, each with a schedule of its own


@dataclass(frozen=True)
class Declaration:
    """A study as it is declared; arms are expanded."""

    name: str
    title: str
    metric: str
    margin: float | None  # of non-inferiority, in units of the metric; None: as the comparison's
    seeds: tuple[int, ...]
    common: tuple[str, ...]  # settings of all jobs
    arms: tuple[Arm, ...]


def declared(node: Mapping[str, Any], name: str) -> Declaration:
    """Read a declaration; raises `ConfigError` with all that is wrong.

    Every combination of the values in an arm's `grid` is an arm, and so is every budget.
    """
    problems = list(_problems(node, name))
    if problems:
        raise ConfigError(report(problems))
    arms = [arm for key, told in node["arms"].items() for arm in _arms(str(key), told)]
    twice = sorted({arm.name for arm in arms if [each.name for each in arms].count(arm.name) > 1})
    if twice:
        raise ConfigError(f"study={name}: two arms are called {twice[0]}; rename one.")
    margin = node.get("margin")
    return Declaration(
        name=str(node.get("name") or name),
        title=str(node.get("title") or name),
        metric=str(node["metric"]),
        margin=None if margin is None else float(margin),
        seeds=tuple(node["seeds"]),
        common=_texts(node.get("common")),
        arms=tuple(arms),
    )


def seed_problem(seed: object) -> str | None:
    whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= _LAST_SEED
    return None if whole else f"a seed is a whole number from 0 to 2^63 - 1, got {seed!r}."


def _problems(node: Mapping[str, Any], name: str) -> Iterator[str]:
    for key in node:
        if key not in _FIELDS:
            near = did_you_mean(str(key), _FIELDS)
            yield f"study.{key} is no part of a study: {', '.join(_FIELDS)}.{near}"
    called = str(node.get("name") or name)
    if not _NAME.fullmatch(called):
        yield f"study.name={called!r} becomes a directory: letters, digits, _, . and - only."
    if not isinstance(node.get("metric"), str):
        yield "study.metric needs the primary metric, such as val/loss."
    margin = node.get("margin")
    if margin is not None and not (_is_number(margin) and 0 <= margin < math.inf):
        yield f"study.margin must be a number >= 0 in units of the metric, or null, got {margin!r}."
    yield from _seeds_problems(node.get("seeds"))
    yield from _list_problems(node.get("common"), "study.common")
    arms = node.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        yield "study.arms needs arms by name: {scratch: {kind: baseline, set: [growth=none]}}."
        return
    for key, arm in arms.items():
        yield from _arm_problems(f"study.arms.{key}", str(key), arm)


def _seeds_problems(seeds: object) -> Iterator[str]:
    if not isinstance(seeds, list) or not seeds:
        yield f"study.seeds must be a list such as [0,1,2,3,4], got {seeds!r}."
        return
    yield from (f"study.seeds: {told}" for seed in seeds if (told := seed_problem(seed)))
    if len(set(map(str, seeds))) < len(seeds):
        yield f"study.seeds={seeds} names one seed twice."


def _arm_problems(path: str, name: str, arm: Any) -> Iterator[str]:
    if not isinstance(arm, Mapping):
        yield f"{path} must be {{kind: …, set: […]}}, got {arm!r}."
        return
    for key in arm:
        if key not in _OF_ARM:
            near = did_you_mean(str(key), _OF_ARM)
            yield f"{path}.{key} is no part of an arm: {', '.join(_OF_ARM)}.{near}"
    if not _NAME.fullmatch(name):
        yield f"{path}: an arm's name becomes a directory: letters, digits, _, . and - only."
    kinds = [kind.value for kind in Kind]
    if arm.get("kind") not in kinds:
        yield f"{path}.kind must be one of {', '.join(kinds)}, got {arm.get('kind')!r}."
    yield from _list_problems(arm.get("set"), f"{path}.set")
    yield from _grid_problems(arm.get("grid"), f"{path}.grid")
    budgets = arm.get("budgets", [1.0])
    shares = isinstance(budgets, list) and budgets
    if not shares or not all(_is_number(b) and 0 < b < math.inf for b in budgets):
        yield f"{path}.budgets must be shares of train.duration above 0, such as [0.5, 1.0]."


def _list_problems(told: object, path: str) -> Iterator[str]:
    if told is not None and not (isinstance(told, list) and all(isinstance(t, str) for t in told)):
        yield f"{path} must be a list of settings such as [growth=none, optimizer.lr=0.01]."


def _grid_problems(grid: object, path: str) -> Iterator[str]:
    if grid is None:
        return
    for key, axis in grid.items() if isinstance(grid, Mapping) else [("", None)]:
        if isinstance(axis, Mapping) and axis:
            for label, told in axis.items():
                yield from _list_problems(told, f"{path}.{key}.{label}")
        elif not (isinstance(axis, list) and axis):
            yield (
                f"{path} must be lists of values by setting, {{warmup: [none, zero_init]}}, or"
                " settings by label, {from: {small: [growth.start.depth=1]}}."
            )


def _arms(name: str, told: Mapping[str, Any]) -> Iterator[Arm]:
    kind, own = Kind(told["kind"]), _texts(told.get("set"))
    axes = [list(_axis(key, axis)) for key, axis in (told.get("grid") or {}).items()]
    budgets: Sequence[float] = told.get("budgets") or []
    for chosen in itertools.product(*axes):
        words = [name, *(label for label, _ in chosen)]
        settings = (*own, *(text for _, texts in chosen for text in texts))
        for budget in budgets:
            yield Arm("_".join([*words, f"{budget:g}"]), kind, settings, float(budget))
        if not budgets:
            yield Arm("_".join(words), kind, settings)


def _axis(key: str, axis: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every place on an axis of a grid: its label and its settings."""
    if isinstance(axis, Mapping):
        yield from ((str(label), _texts(texts)) for label, texts in axis.items())
        return
    for value in axis:
        yield re.sub(r"[^A-Za-z0-9_.-]+", "-", str(value)).strip("-"), (f"{key}={value}",)


def _texts(told: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(told or ())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
