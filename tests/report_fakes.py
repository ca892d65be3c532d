"""A run that never trains, for the tests of what is shown and stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from progtrain.clock import Clock, Duration, Moment, Unit
from progtrain.report.reporter import PlannedStage, Reporter
from progtrain.report.words import Heading
from progtrain.run import Event, Observation, Phase, Probe, Run, StopReason

COMMAND = "progtrain resume=outputs/a  'x y'"
HEADING = Heading(
    Path("outputs/a"), {"growth": "plateau", "model": "mlp"}, ["torch 2.11, cpu"], COMMAND
)
CAUSE = "[red]no rise[/red] for 3 evaluations"  # what looks like markup is shown as it is
PLAN = [
    PlannedStage("start", 1042, 3.2e6, "the first network"),
    PlannedStage("wider", 1578, 6.4e6, "stem 8 → 16, blocks.0 8 → 16"),
]


class FakeEdit:
    def describe(self) -> str:
        return "stem 8 → 16"

    brief = describe


@dataclass
class FakeLoss:
    """Counts how often it is read; on a GPU each reading waits."""

    value: float = 0.5
    readings: int = 0

    def item(self) -> float:
        self.readings += 1
        return self.value


def a_run(step: int = 400) -> Run:
    moment = Moment(step, step * 10, step * 6.4e6, step * 0.05)
    clock = Clock(Duration(800, Unit.STEP), 2000, moment)
    probe = Probe(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))
    return Run(7, clock, None, None, probe, "val/accuracy", "max", 1042, 3.2e6)


def an_event(run: Run, **changes: object) -> Event:
    now = run.clock.now
    event = Event(
        0, "wider", CAUSE, FakeEdit(), now, Phase.WARMUP, now, (), (), 1042, 1578, 3.2e6, 6.4e6,
        True, 1.2e-7, 0.8, 0.8001, 2.5e-6, 0.4301, 0.4302, 1e9, 72.0, 0.43,
    )  # fmt: skip
    return replace(event, **changes)


def seen(run: Run, accuracy: float) -> Observation:
    run.history.append(Observation(run.clock.now, run.clock.epoch, {"val/accuracy": accuracy}))
    return run.history[-1]


def advance(run: Run, step: int) -> None:
    run.clock.now = a_run(step).clock.now


def tell(told: Reporter) -> Run:
    """A whole run: evaluation, growth, next phase, a note, the end."""
    run, loss = a_run(0), FakeLoss()
    told.started(run, PLAN)
    advance(run, 400)
    told.stepped(run, loss)
    told.observed(run, seen(run, 0.95))
    run.events, run.params = [an_event(run)], 1578
    told.grew(run, run.events[0])
    run.events[0] = replace(run.events[0], phase=Phase.CONSOLIDATE)
    told.advanced(run, run.events[0])
    told.noted(run, "checkpoint written")
    advance(run, 800)
    told.observed(run, seen(run, 0.9))
    run.stopped, run.grown_out = StopReason.DURATION, StopReason.MAX_STAGES
    told.stopped(run)
    return run
