"""Reasons to distrust a comparison, each with what to do about it.

The criticisms are those of Kaddour et al. 2023 (No Train No Gain, arXiv 2307.06440) and of the
reviews of growing methods since: baselines read before their learning rate has come down, sources
that are not charged, one seed, no smaller network at equal cost, tuning for one side only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from progtrain.clock import Duration
from progtrain.comparison.arms import Group, same_size
from progtrain.comparison.frontier import REACH
from progtrain.comparison.read import Found
from progtrain.comparison.result import Kind, Unfair
from progtrain.errors import ProgtrainError, SettingError
from progtrain.report.outcomes import DONE
from progtrain.report.units import flops
from progtrain.study.file import Study

_CONSTANT = ("constant", "cyclic")  # schedules that do not come down
_DECAYED = 0.5  # share of its peak below which a learning rate has come down
_LENGTHS = ("scheduler.length", "scheduler.decay")
_DATA = ("data.", "augment.", "mix.")
_ORDER = ("train.batch_size", "train.accumulate")
_RATE = "optimizer.lr"


def unfair(groups: Sequence[Group], studies: Sequence[Study]) -> tuple[Unfair, ...]:
    """Everything that a reviewer would hold against the comparison, the gravest first."""
    found: list[Unfair] = []
    checks: tuple[Callable[[Sequence[Group]], Iterator[Unfair]], ...] = (
        _missing,
        _undecayed,
        _uncharged,
        _far,
        _seeds,
        _order,
        _failed,
        _repeated,
        _edges,
        _sizes,
    )
    for check in checks:
        found += check(groups)
    return (*found, *_metric(groups, studies))


def undecayed(found: Found) -> str:
    """Why the learning rate of a run had not come down at its end; empty where it had."""
    if found.stop not in ("", "DURATION"):
        return f"it was ended early ({found.stop.lower()})"
    schedule = found.settings.get("scheduler") or _schedule(found)
    if schedule in _CONSTANT:
        return f"scheduler={schedule}"
    for name in _LENGTHS:
        length = found.settings.get(name, found.config.get(name))
        whole = found.settings.get("train.duration", found.config.get("train.duration"))
        if _longer(length, whole):
            return f"{name}={length} is longer than train.duration={whole}"
    if found.rates and found.rates[1] > _DECAYED * found.rates[0]:
        return f"its last learning rate is {found.rates[1] / found.rates[0]:.0%} of its largest"
    return ""


def _schedule(found: Found) -> str:
    """The name of the class's module: `cosine` for progtrain.schedulers.cosine.Cosine."""
    parts = str(found.config.get("scheduler._target_", "")).split(".")
    return parts[-2] if len(parts) > 1 else ""


def _longer(length: object, whole: object) -> bool:
    try:
        one, other = Duration.parse(str(length), "length"), Duration.parse(str(whole), "duration")
    except (ProgtrainError, SettingError):
        return False
    return one.unit is other.unit and one.value > other.value


def _missing(groups: Sequence[Group]) -> Iterator[Unfair]:
    grown = [group for group in groups if group.kind is Kind.GROWN]
    if not grown:
        text = "No arm grows, so there is nothing to judge. Add a run with growth=<policy>."
        yield Unfair("nothing_grown", text)
    alone = [group for group in grown if group.done and not _baselines(group, groups)]
    if alone:
        sizes = sorted({f"{group.params:,.0f}" for group in alone if group.params is not None})
        yield Unfair(
            "baseline_missing",
            f"No from-scratch run has the size that {_listed(alone)} ends with"
            f" ({', '.join(sizes)} parameters), so equal quality has no price. Add growth=none at"
            " that size, at four budgets (train.duration at 0.35, 0.5, 0.7 and 1.0 of the length).",
            _names(alone),
        )


def _undecayed(groups: Sequence[Group]) -> Iterator[Unfair]:
    still = [group for group in groups if group.kind is not Kind.GROWN]
    told = {g.name: why for g in still for each in reversed(g.done) if (why := undecayed(each))}
    if told:
        each = "; ".join(f"{name}: {why}" for name, why in told.items())
        yield Unfair(
            "undecayed",
            f"Runs that do not grow were read before their learning rate had come down ({each})."
            " That makes growing look better than it is: give every budget a run of its own with"
            " a whole schedule (train.duration=<budget>, scheduler=wsd or cosine).",
            tuple(told),
        )


def _uncharged(groups: Sequence[Group]) -> Iterator[Unfair]:
    told = {g.name: e.uncharged for g in groups for e in g.found if e.uncharged}
    if told:
        each = "; ".join(f"{name}: {source}" for name, source in told.items())
        yield Unfair(
            "uncharged",
            f"What it cost to train the network that a run starts from is not in its figures"
            f" ({each}). Start from fresh weights, or add that cost before you claim a saving.",
            tuple(told),
        )


def _far(groups: Sequence[Group]) -> Iterator[Unfair]:
    far: list[Group] = []
    for group in groups:
        baselines = _baselines(group, groups) if group.kind is Kind.GROWN else []
        cost, costs = _cost(group), [c for each in baselines if (c := _cost(each)) is not None]
        if costs and cost and not any(cost / REACH <= each <= cost * REACH for each in costs):
            far.append(group)
    if far:
        each = ", ".join(f"{group.name} at {flops(_cost(group) or 0)}" for group in far)
        yield Unfair(
            "no_baseline_near",
            f"No baseline was trained with about the compute (factor {REACH}) of {each}. Add"
            " growth=none with a train.duration that costs as much.",
            _names(far),
        )


def _seeds(groups: Sequence[Group]) -> Iterator[Unfair]:
    counted = [g for g in groups if g.kind is not Kind.FIXED and g.done]
    few = [group for group in counted if len(group.done) < 5]
    if few:
        least = min(len(group.done) for group in few)
        many = f"{least} seed{'s' * (least != 1)}"
        words = "too few to say anything" if least < 3 else "few"
        yield Unfair(
            "few_seeds",
            f"{many} in some arms are {words}: intervals are wide and rest on the assumption of"
            " normal noise. Use five or more (seed=0,1,2,3,4).",
            _names(few),
        )


def _order(groups: Sequence[Group]) -> Iterator[Unfair]:
    for group in groups:
        baselines = _baselines(group, groups) if group.kind is Kind.GROWN else []
        reasons: list[str] = []
        seeds = {each.run.seed for each in group.found}  # one that failed was to see them
        if any({e.run.seed for e in b.found} != seeds for b in baselines):
            reasons.append("its seeds are others than those of its baseline")
        names = {name for b in baselines for name in _differing(group, b)}
        reasons += [f"{', '.join(sorted(names))} differ"] if names else []
        if reasons:
            yield Unfair(
                "data_order",
                f"{group.name} did not see the data that its baseline saw: {'; '.join(reasons)}."
                " Use the same seed=, data and train.batch_size for all arms.",
                (group.name,),
            )


def _failed(groups: Sequence[Group]) -> Iterator[Unfair]:
    lost = {g.name: [e.run for e in g.found if e.run.status != DONE] for g in groups}
    lost = {name: runs for name, runs in lost.items() if runs}
    if lost:
        each = ", ".join(f"{name} {len(runs)}" for name, runs in lost.items())
        yield Unfair(
            "failed_runs",
            f"Runs that did not come to their end are left out ({each}). Seeds that fail are not"
            " drawn at random: run them again (resume=<directory>), or report them as failures.",
            tuple(lost),
        )


def _repeated(groups: Sequence[Group]) -> Iterator[Unfair]:
    twice = [group for group in groups if group.repeated]
    if twice:
        yield Unfair(
            "repeated_seeds",
            f"A seed occurs twice in {_listed(twice)}; only its first run counts, as a copy is no"
            " new evidence. Use another seed.",
            _names(twice),
        )


def _edges(groups: Sequence[Group]) -> Iterator[Unfair]:
    """Arms that differ in the learning rate alone: the best must lie inside of the grid."""
    grids: dict[tuple[tuple[str, str], ...], dict[float, Group]] = {}
    for group in groups:
        if _RATE in group.settings and group.done:
            rest = {k: v for k, v in group.settings.items() if k != _RATE}
            rate = float(group.settings[_RATE])
            grids.setdefault(tuple(sorted(rest.items())), {})[rate] = group
    for grid in grids.values():
        if len(grid) < 2:
            continue
        best = min(grid, key=lambda rate: _loss(grid[rate]))
        if best in (min(grid), max(grid)):
            way = "smaller" if best == min(grid) else "larger"
            yield Unfair(
                "lr_edge",
                f"The best of {len(grid)} learning rates, {_RATE}={best:g}"
                f" ({grid[best].name}), is the {way[:-2]}est tried, so the best may not have been"
                f" tried. Add a {way} one.",
                (grid[best].name,),
            )


def _sizes(groups: Sequence[Group]) -> Iterator[Unfair]:
    if any(g.kind is Kind.GROWN for g in groups) and not any(g.kind is Kind.FIXED for g in groups):
        yield Unfair(
            "no_fixed_size",
            "No smaller network that never grows is among the arms. Where the full size is too"
            " large for the budget, any smaller one wins at equal compute, grown or not: add"
            " growth=none with a smaller model.width or model.depth.",
        )


def _metric(groups: Sequence[Group], studies: Sequence[Study]) -> Iterator[Unfair]:
    told = {e.metric for g in groups for e in g.found if e.metric}
    declared = {s.metric for s in studies if s.metric and s.metric not in told}
    if declared and told:
        yield Unfair(
            "different_metric",
            f"The study declares {', '.join(sorted(declared))}, its runs were judged by"
            f" {', '.join(sorted(told))}. Choose the metric before the runs, and keep it:"
            " set train.metric in the study.",
        )
    names = {n for a in groups for b in groups for n in _differing(a, b, ("metric.",))}
    if names:
        yield Unfair(
            "different_metric",
            f"The metric was not measured alike in all arms: {', '.join(sorted(names))} differ.",
        )


def _baselines(group: Group, groups: Sequence[Group]) -> list[Group]:
    return [
        each
        for each in groups
        if each.kind is Kind.BASELINE and each.done and same_size(each.params, group.params)
    ]


def _differing(one: Group, other: Group, prefixes: Sequence[str] = _DATA) -> list[str]:
    """Settings of the data that two arms have differently."""
    if not one.done or not other.done:
        return []
    mine, theirs = one.done[0].config, other.done[0].config
    if not mine or not theirs:
        mine, theirs = one.done[0].settings, other.done[0].settings
    exact = _ORDER if prefixes is _DATA else ()
    names = [n for n in {*mine, *theirs} if n in exact or n.startswith(tuple(prefixes))]
    return [name for name in names if mine.get(name) != theirs.get(name)]


def _cost(group: Group) -> float | None:
    summary = group.summary(lambda run: run.flops)
    return summary.mean if summary else None


def _loss(group: Group) -> float:
    summary = group.summary(lambda run: run.quality)
    mean = summary.mean if summary else float("inf")
    return -mean if group.done[0].mode == "max" else mean


def _names(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(group.name for group in groups)


def _listed(groups: Sequence[Group]) -> str:
    names = _names(groups)
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
