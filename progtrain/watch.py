"""What the machine does for monitors: asks them, tells what they found, applies remedies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from progtrain.account import MONITORS
from progtrain.clock import Moment
from progtrain.contracts import Monitor
from progtrain.growth import life, remedies
from progtrain.monitors.finding import Finding, Occasion
from progtrain.monitors.monitor import only_told, tell, told
from progtrain.run import Phase, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Found:
    """A finding that is new, and whose remedy is to follow."""

    name: str  # of the monitor
    monitor: Monitor
    finding: Finding


def watch(run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Iterator[Found]:
    """Every new finding; each is told once for each growth, or once where it is about none.

    A monitor looks when the remedies of those before it have been applied.
    """
    for name, monitor in setup.watching.items():
        seen = monitor.watch(run, setup, occasion, last)
        run.clock.charge(MONITORS, seen.flops)
        for index, worth in seen.contributions.items():
            _note_contribution(run, setup, index, worth)
        for finding in seen.findings:
            key = finding.key or (name if finding.blames else only_told(name))
            once = finding.event is not None or finding.key
            if once and told(run, key, finding.event) is not None:
                continue
            tell(run, key, finding.event)
            event = run.events[finding.event] if finding.event is not None else None
            setup.reporter.found(run, "finding", f"{name}: {finding.told}", event)
            if finding.blames and (event is None or event.phase is not Phase.ROLLED_BACK):
                yield Found(name, monitor, finding)


def _note_contribution(run: Run, setup: Setup, index: int, worth: float) -> None:
    run.events[index] = event = replace(run.events[index], contribution=worth)
    text = f"growth {index + 1} {event.stage} contributes {worth:+.4g} to {run.metric}"
    setup.reporter.found(run, "contribution", text, event)


def remedied(run: Run, setup: Setup, found: Found) -> str:
    """Apply a remedy that leaves the network as it is; what was done, in words.

    `Controls` must be made anew.
    """
    match found.monitor.remedy:
        case "adapt" if found.finding.event is None:
            return f"{found.name}: {remedies.sooner(run)}"
        case "adapt":
            return f"{found.name}: {remedies.gentler(run)}{_held(run, setup, found)}"
        case "grow":
            remedies.ask_to_grow(run, found.finding.told)
            return f"{found.name}: the next growth comes now"
        case "stop":
            remedies.ask_to_stop(run, found.name)
            return f"{found.name}: the run stops"
        case "rollback":
            return f"{found.name}: it cannot be undone any more"
        case _:
            return ""


def _held(run: Run, setup: Setup, found: Found) -> str:
    """Put the ramp that a finding is about on hold, and stretch what is left of it."""
    assert found.finding.event is not None
    event, length = run.events[found.finding.event], found.monitor.hold
    if event.phase is not Phase.WARMUP or not length:
        return ""
    held = life.hold(event, setup, run.clock, length)
    run.events[event.index] = life.retarget(held, 2.0)
    return f"; the ramp of growth {event.index + 1} waits for {length}, the rest takes ×2"


def close_ways_back(run: Run, setup: Setup) -> None:
    """Forget the ways back that nothing can take any more: each holds a whole network."""
    if not run.ways_back:
        return
    undoing = [m for m in setup.monitors.values() if m.remedy == "rollback"]
    for index in list(run.ways_back):
        event = run.events[index]
        asked = setup.growth.keep_if is not None and event.alive
        if not asked and not any(monitor.watches(run, setup, event) for monitor in undoing):
            del run.ways_back[index]
