"""Growths that fail on purpose, monitors that find what they are told: for tests of remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from run_kit import parts

from progtrain.build import Parts
from progtrain.clock import Duration, Moment
from progtrain.contracts import Strength
from progtrain.monitors.finding import Finding, Occasion, Watched
from progtrain.run import Event, Phase, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Rated:
    """A warmup in which what is new learns at `rate` times the rate of the host."""

    rate: float
    length: str = "6steps"
    zeroes: bool = False

    preserves = False
    blends = False
    isolates = False

    def lengths(self) -> Mapping[Phase, Duration]:
        return {Phase.WARMUP: Duration.parse(self.length, "length")}

    def strength(self, phase: Phase, progress: float) -> Strength:
        return Strength(1.0, self.rate if phase is Phase.WARMUP else 1.0)


WILD = Rated(100.0)  # the growth explodes
USELESS = Rated(0.0, zeroes=True)  # what is new is silent and learns nothing


@dataclass(frozen=True)
class Finds:
    """Finds something in growths at steps, as it is told."""

    at: Mapping[int, int]  # step -> index of the growth
    remedy: str = "warn"
    hold: str = "3steps"

    name = "finds"
    lookback = 0

    def check(self, setup: Setup) -> None:
        pass

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        return any(run.clock.step < step for step, i in self.at.items() if i == event.index)

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        index = self.at.get(run.clock.step)
        if index is None or occasion is Occasion.OBSERVED:
            return Watched()
        return Watched((Finding(f"it is step {run.clock.step}", index),))


# Widths grow at step 8, and from what embargo of 10% (4 steps) allows on; evaluations are rare.
GROWING = (
    "growth=schedule",
    "growth.consolidation=2steps",
    "growth.stages.deeper.at=8steps",
    "growth.stages.deeper.operator=${widen}",
    "growth.stages.wider.at=30steps",
    "train.duration=40steps",
    "train.evaluate_every=20steps",
    "train.ema=0.9",
    "model.norm=none",
    "optimizer.lr=1e-2",
)
WATCHED = (
    "monitor=instability",
    "monitor.instability.window=6",
    "monitor.instability.every=2",
    "monitor.instability.variance=1000",
    "monitor.instability.hold=3steps",
)


def exploding(*overrides: str) -> Parts:
    """A run whose growths are unstable, and the monitor that looks for that."""
    return replace(parts(*GROWING, *WATCHED, *overrides), warmup=WILD)
