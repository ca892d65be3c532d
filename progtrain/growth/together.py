"""A growth of several processes: all grow, in the same way and to the same bits, or none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from progtrain.errors import GrowthError
from progtrain.hardware.group import Group
from progtrain.hardware.replicas import equalise
from progtrain.run import Event, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class _Problem:
    """Why a process cannot grow."""

    text: str
    kind: type[GrowthError]


def together(run: Run, setup: Setup, attempt: Callable[[], Event]) -> Event:
    """`attempt` on every process; raises its `GrowthError` on all where it fails on one, and then
    the run is as it was."""
    group = setup.engine.group
    if group.world == 1:
        return attempt()
    undo = _way_back(run)
    own: GrowthError | None = None
    try:
        attempt()
    except GrowthError as error:
        own = error
    except Exception as error:
        own = GrowthError(f"A process of several could not grow: {type(error).__name__}: {error}")
        own.__cause__ = error  # whatever it is, the others must hear of it
    _raise_together(group, own, undo)
    networks = [run.model, *([run.average] if run.average is not None else [])]
    equalise(group, networks, run.optimizer)
    run.events[-1] = group.of_first(run.events[-1])
    return run.events[-1]


def _raise_together(group: Group, own: GrowthError | None, undo: Callable[[], None]) -> None:
    told = group.gathered(_Problem(str(own), type(own)) if own is not None else None)
    problems = {rank: each for rank, each in enumerate(told) if each is not None}
    if not problems:
        return
    undo()
    rank, first = next(iter(problems.items()))
    alike = len(problems) == group.world and all(p == first for p in problems.values())
    if own is not None and alike:
        raise own
    kinds = {each.kind for each in problems.values()}
    kind = kinds.pop() if len(kinds) == 1 else GrowthError
    where = "" if alike else f" (told by process {rank} of {group.world}; none has grown)"
    raise kind(f"{first.text}{where}") from own


def _way_back(run: Run) -> Callable[[], None]:
    """What puts the run's own objects back; a growth swaps them and changes none."""
    names = ("model", "optimizer", "average", "params", "flops")
    kept = {name: getattr(run, name) for name in names}
    events, ways_back = run.events, dict(run.ways_back)

    def undo() -> None:
        for name, value in kept.items():
            setattr(run, name, value)
        run.events, run.ways_back = events, ways_back

    return undo
