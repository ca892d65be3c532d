"""Growing too slowly: a long plateau while there is time left and more could grow.

Its patience must be longer than that of the trigger, which otherwise grows first; it finds
triggers that do not fire, as a `min_delta`, an interval or a distant time may have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from progtrain.clock import Moment
from progtrain.errors import ConfigError, require
from progtrain.growth.past import last_growth, observed
from progtrain.monitors.finding import Finding, Occasion, Watched
from progtrain.monitors.monitor import told
from progtrain.run import Event, Run, Stage
from progtrain.setup import Setup

REMEDIES = ("warn", "adapt", "grow", "stop")


@dataclass(frozen=True, kw_only=True)
class Slow:
    """Finds plateaus of `patience` observations while growth is not over."""

    patience: int = 6  # observations without improvement, since the last growth
    left: float = 0.1  # share of the run that must be left, in [0, 1)
    remedy: str = "warn"  # warn, adapt, grow or stop

    name = "slow"
    hold = ""
    lookback = 0

    def __post_init__(self) -> None:
        undo = "No growth is to blame for a plateau, so none is undone."
        hint = undo if self.remedy == "rollback" else ""
        require(self.remedy in REMEDIES, "remedy", self.remedy, ", ".join(REMEDIES), hint)
        require(self.patience >= 1, "patience", self.patience, "a whole number >= 1")
        require(isfinite(self.left) and 0 <= self.left < 1, "left", self.left, "in [0, 1)")

    def check(self, setup: Setup) -> None:
        asks = getattr(getattr(setup.growth, "trigger", None), "patience", 0)
        if isinstance(asks, int) and self.patience <= asks:
            raise ConfigError(
                f"monitor.slow.patience must be more than growth.trigger.patience={asks}, got"
                f" {self.patience}: the trigger is to come first. Try {2 * asks}."
            )

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        return False

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        if occasion is not Occasion.OBSERVED or run.living or run.grown_out:
            return Watched()
        if 1 - run.clock.fraction < self.left or not self._flat(run):
            return Watched()
        if not isinstance(stage := setup.growth.upcoming(run), Stage):
            return Watched()
        best = f"{run.best_metric:.4g}" if run.best_metric is not None else "its start"
        return Watched(
            (
                Finding(
                    f"growing is slow: {run.metric} has not improved on {best} for"
                    f" {self.patience} observations, {1 - run.clock.fraction:.0%} of the run is"
                    f" left and {stage.name} could grow"
                ),
            )
        )

    def _flat(self, run: Run) -> bool:
        """Whether the last observations since the last growth or finding beat none before them."""
        since = max(last_growth(run).step, told(run, self.name, None) or 0)
        sign = 1 if run.mode == "max" else -1
        seen = [(moment.step, sign * value) for moment, value in observed(run, run.metric)]
        recent, before = seen[-self.patience :], [v for _, v in seen[: -self.patience]]
        enough = len(recent) == self.patience and recent[0][0] > since
        return enough and bool(before) and max(v for _, v in recent) <= max(before)
