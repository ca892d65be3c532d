"""Takes a multirun apart into its jobs, numbered as Hydra's basic sweeper will number them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType
from omegaconf import DictConfig

from progtrain.command_line import tree
from progtrain.command_line.argv import Command
from progtrain.command_line.session import Session
from progtrain.errors import ConfigError

MOST_JOBS = 10_000
Axis = list[str]  # the same setting with each of its values
_EXHAUSTIVE = 100  # more combinations than this are checked one value at a time


def axes(session: Session, overrides: Sequence[Override], params: Mapping[str, str]) -> list[Axis]:
    """One axis for each setting, in the order of the sweeper; the last of two equal keys wins."""
    given = [session.parse(f"{key}={value}") for key, value in params.items()]
    found: dict[str, Axis] = {}
    for override in (*given, *overrides):
        if override.is_hydra_override():
            continue
        found[override.get_key_element()] = _values(override)
    return list(found.values())


def fitting(session: Session, command: Command) -> Command:
    """A multirun over options of a group, with the settings that not every option has as sweeps of
    one value: Hydra composes the multirun itself with the option that is not swept."""
    try:
        parsed = [session.parse(text) for text in command.overrides]
        swept = [o for o in parsed if o.is_sweep_override() and o.key_or_group in session.groups]
        fixed = [o for o in parsed if o.key_or_group in session.groups and o not in swept]
        inside = [o for o in parsed if not o.is_sweep_override() and o.type is OverrideType.CHANGE]
        inside = [o for o in inside if any(within(o.key_or_group, s.key_or_group) for s in swept)]
        fixed = [str(o.input_line) for o in fixed if o not in inside]
        config = session.compose(fixed, sweep=True) if inside else None
    except ConfigError:  # the check of all settings tells it
        return command
    strange = {str(o.input_line) for o in inside if config and not _known(config, o.key_or_group)}
    again = (_alone(text) if text in strange else text for text in command.overrides)
    return replace(command, overrides=tuple(again))


def within(key: str, group: str) -> bool:
    """Whether a setting, or a group, belongs to a group."""
    return key.startswith((f"{group}/", f"{group.replace('/', '.')}."))


def _known(config: DictConfig, key: str) -> bool:
    return key in config.hydra.runtime.choices or tree.find(config, key).exists


def _alone(text: str) -> str:
    key, _, value = text.partition("=")
    return f"{key}=choice({value})" if value else text


def jobs(axes: Sequence[Axis]) -> dict[int, tuple[str, ...]]:
    """Settings of the jobs to check, by number; all of them unless they are very many."""
    total = math.prod(len(axis) for axis in axes)
    if total > MOST_JOBS:
        raise ConfigError(
            f"This multirun has {total:,} jobs; the most is {MOST_JOBS:,}. Sweep over less."
        )
    if total <= _EXHAUSTIVE:
        return dict(enumerate(itertools.product(*axes)))
    sizes = [math.prod(len(axis) for axis in axes[place + 1 :]) for place in range(len(axes))]
    first = [axis[0] for axis in axes]
    varied = {0: tuple(first)}
    for place, axis in enumerate(axes):
        for index, value in enumerate(axis):
            settings = (*first[:place], value, *first[place + 1 :])
            varied[index * sizes[place]] = settings
    return varied


def count(axes: Sequence[Axis]) -> int:
    return math.prod(len(axis) for axis in axes)


def report(problems: Mapping[int, Sequence[str]], total: int) -> list[str]:
    """One line a problem, with the jobs that have it unless all have."""
    told: dict[str, list[int]] = {}
    for number, texts in problems.items():
        for text in texts:
            told.setdefault(text, []).append(number)
    return [
        text if len(numbers) == total else f"{_listed(numbers, total)}: {text}"
        for text, numbers in told.items()
    ]


def _listed(numbers: Sequence[int], total: int) -> str:
    """`jobs #3 and #7 of 12`."""
    shown = [f"#{number}" for number in numbers[:8]]
    more = [f"{len(numbers) - 8} more"] if len(numbers) > 8 else []
    *first, last = shown + more
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"{'job' if len(numbers) == 1 else 'jobs'} {listed} of {total}"


def _values(override: Override) -> Axis:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [str(override.input_line)]
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={end}" for end in (value.start, value.end)]
    texts = [f"{key}={text}" for text in override.sweep_string_iterator()]
    if not texts:
        raise ConfigError(f"{override.input_line} sweeps over nothing.")
    return texts


def varies(overrides: Sequence[Override], params: Mapping[str, str]) -> bool:
    """Whether there is anything to sweep over; one value is no sweep."""
    return bool(params) or any(override.is_sweep_override() for override in overrides)
