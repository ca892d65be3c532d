"""The life cycle of a growth: which phase follows, and how strong its parts are.

ISOLATE (frozen host) → WARMUP → CONSOLIDATE (nothing changes) → INTEGRATED; a phase without a
length is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from progtrain.clock import Clock, Duration, Moment
from progtrain.contracts import Growth, Strength, Warmup
from progtrain.run import Event, Phase, Run


def lengths(warmup: Warmup, growth: Growth) -> Mapping[Phase, Duration]:
    """Length of every phase that lasts."""
    every = {**warmup.lengths(), Phase.CONSOLIDATE: growth.consolidate}
    return {phase: length for phase, length in every.items() if length.value > 0}


def first_phase(lasting: Mapping[Phase, Duration]) -> Phase:
    return next((phase for phase in Phase if phase in lasting), Phase.INTEGRATED)


def following(phase: Phase, lasting: Mapping[Phase, Duration]) -> Phase:
    order = list(Phase)
    later = order[order.index(phase) + 1 :]
    return next((p for p in later if p in lasting), Phase.INTEGRATED)


def strengths(run: Run, warmup: Warmup, until: Moment) -> dict[int, Strength]:
    """Strength of every living growth in the step that ends at `until`, by event index.

    Progress is that of the step's end, so the last step of a ramp runs at full strength.
    """
    return {event.index: strength(event, warmup, run.clock, until) for event in run.living}


def strength(event: Event, warmup: Warmup, clock: Clock, until: Moment) -> Strength:
    length = warmup.lengths().get(event.phase)
    if length is None:
        return Strength()
    return warmup.strength(event.phase, clock.progress(event.since, length, until))


def advance(
    run: Run, lasting: Mapping[Phase, Duration], strong: Mapping[int, Strength]
) -> list[Event]:
    """Note every living growth's alpha and move on those whose phase is over; the moved ones.

    All alphas are noted before anything is made anew from the events.
    """
    moved: list[Event] = []
    for event in run.living:
        now = replace(event, alpha=strong[event.index].alpha)
        run.events[event.index] = advanced(now, lasting, run.clock)
        if run.events[event.index].phase is not event.phase:
            moved.append(run.events[event.index])
    return moved


def advanced(event: Event, lasting: Mapping[Phase, Duration], clock: Clock) -> Event:
    """The event after the clock has moved: in its next phase where the present one is over."""
    if not event.alive or clock.progress(event.since, lasting[event.phase]) < 1:
        return event
    return replace(event, phase=following(event.phase, lasting), since=clock.now, alpha=1.0)
