"""The life cycle of a growth: which phase follows, and how strong its parts are.

ISOLATE (frozen host) → WARMUP → SETTLE (lower learning rate) → CONSOLIDATE (nothing changes) →
INTEGRATED; a phase without a length is skipped. A ramp may be put on HOLD, where alpha waits, and
goes on from there: a ramp that could be retargeted in its middle could swing for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from progtrain.clock import Clock, Duration, Moment
from progtrain.contracts import Strength
from progtrain.run import Event, Phase, Run
from progtrain.setup import Setup


def lengths(setup: Setup, event: Event | None = None) -> Mapping[Phase, Duration]:
    """Length of every phase that lasts, of this growth or of one with nothing of its own."""
    own = event.consolidation if event else None
    consolidate = Duration.parse(own, "consolidation") if own else setup.growth.consolidate
    stretch = event.stretch if event else 1.0
    every = {phase: scaled(each, stretch) for phase, each in setup.warmup.lengths().items()}
    if event and event.hold:
        every[Phase.HOLD] = Duration.parse(event.hold, "hold")
    if event and event.ramped and Phase.WARMUP in every:
        every[Phase.WARMUP] = scaled(every[Phase.WARMUP], 1 - event.ramped)
    every |= {Phase.SETTLE: setup.settle.lasting, Phase.CONSOLIDATE: consolidate}
    return {phase: length for phase, length in every.items() if length.value > 0}


def scaled(length: Duration, factor: float) -> Duration:
    return replace(length, value=length.value * factor)


def first_phase(lasting: Mapping[Phase, Duration]) -> Phase:
    return next((phase for phase in Phase if phase in lasting), Phase.INTEGRATED)


def following(phase: Phase, lasting: Mapping[Phase, Duration]) -> Phase:
    if phase is Phase.HOLD:
        return Phase.WARMUP
    order = list(Phase)
    later = [each for each in order[order.index(phase) + 1 :] if each is not Phase.HOLD]
    return next((each for each in later if each in lasting), Phase.INTEGRATED)


def strengths(run: Run, setup: Setup, until: Moment) -> dict[int, Strength]:
    """Strength of every living growth in the step that ends at `until`, by event index.

    Progress is that of the step's end, so the last step of a ramp runs at full strength.
    """
    return {event.index: strength(event, setup, run.clock, until) for event in run.living}


def strength(event: Event, setup: Setup, clock: Clock, until: Moment) -> Strength:
    if event.phase is Phase.HOLD:
        return setup.warmup.strength(Phase.WARMUP, event.ramped)
    if event.phase not in setup.warmup.lengths():
        return Strength()
    return setup.warmup.strength(event.phase, progress(event, setup, clock, until))


def progress(event: Event, setup: Setup, clock: Clock, until: Moment) -> float:
    """Share of the present phase that is over at `until`; a ramp goes on where a hold kept it."""
    passed = clock.progress(event.since, lengths(setup, event)[event.phase], until)
    if event.phase is not Phase.WARMUP or passed >= 1:
        return passed
    return event.ramped + (1 - event.ramped) * passed


def advance(run: Run, setup: Setup, strong: Mapping[int, Strength]) -> list[Event]:
    """Note every living growth's alpha and move on those whose phase is over; the moved ones.

    All alphas are noted before anything is made anew from the events.
    """
    moved: list[Event] = []
    for event in run.living:
        now = replace(event, alpha=strong[event.index].alpha)
        run.events[event.index] = advanced(now, setup, run.clock)
        if run.events[event.index].phase is not event.phase:
            moved.append(run.events[event.index])
    return moved


def advanced(event: Event, setup: Setup, clock: Clock) -> Event:
    """The event after the clock has moved: in its next phase where the present one is over."""
    lasting = lengths(setup, event) if event.alive else {}
    if not event.alive or clock.progress(event.since, lasting[event.phase]) < 1:
        return event
    if event.phase is Phase.HOLD:
        return replace(event, phase=Phase.WARMUP, since=clock.now, hold="")
    return replace(event, phase=following(event.phase, lasting), since=clock.now, alpha=1.0)


def hold(event: Event, setup: Setup, clock: Clock, length: str) -> Event:
    """The ramp of `event` waits at its alpha for `length`."""
    assert event.phase is Phase.WARMUP, event.phase
    ramped = progress(event, setup, clock, clock.now)
    return replace(event, phase=Phase.HOLD, since=clock.now, ramped=ramped, hold=length)


def retarget(event: Event, stretch: float) -> Event:
    """The rest of a ramp that is on hold takes `stretch` times as long."""
    if event.phase is not Phase.HOLD:
        raise ValueError(f"A ramp may be retargeted from a hold only, not in {event.phase.value}.")
    return replace(event, stretch=event.stretch * stretch)
