"""No monitor: nobody looks."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Moment
from progtrain.monitors.finding import Occasion, Watched
from progtrain.run import Event, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class NoMonitor:
    """Finds nothing and costs nothing."""

    name = "none"
    remedy = "warn"
    hold = ""
    lookback = 0

    def check(self, setup: Setup) -> None:
        """Nothing to refuse."""

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        return False

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        return Watched()
