"""A growth that shocks the network: the metric does not come back to where it was before.

Recovered is `train.recovery` of the metric before the growth, at an evaluation after it. The first
evaluation after `within` decides. What a growth that preserves the function shows before its first
step is no recovery.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration, Moment
from progtrain.growth.past import observed, recovered
from progtrain.monitors.finding import Finding, Occasion, Watched
from progtrain.monitors.monitor import Watcher, growth_name, longer_than_nothing, told
from progtrain.run import Event, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Shock(Watcher):
    """Finds growths that have not recovered `within` a length after them."""

    within: str = "10%"  # of the run, or 200steps, 2epochs, …
    hold: str = "2%"  # how long `adapt` holds the ramp of such a growth

    name = "shock"

    def __post_init__(self) -> None:
        super().__post_init__()
        longer_than_nothing(self.within, "within")
        longer_than_nothing(self.hold, "hold")

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        seen = self._since(run, event)
        within = Duration.parse(self.within, "within")
        late = any(run.clock.progress(event.moment, within, moment) >= 1 for moment, _ in seen)
        return not late and not self._is_back(run, setup, event)

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        if occasion is not Occasion.OBSERVED:
            return Watched()
        within = Duration.parse(self.within, "within")
        late = [
            event
            for event in run.grown
            if run.clock.progress(event.moment, within) >= 1
            and told(run, self.name, event.index) is None
            and not self._is_back(run, setup, event)
        ]
        return Watched(tuple(self._finding(run, setup, event) for event in late))

    def _is_back(self, run: Run, setup: Setup, event: Event) -> bool:
        share = setup.train.recovery
        return any(recovered(run, event, value, share) for _, value in self._since(run, event))

    def _since(self, run: Run, event: Event) -> list[tuple[Moment, float]]:
        """Observations of the metric after the growth."""
        return [each for each in observed(run, run.metric) if each[0].step > event.moment.step]

    def _finding(self, run: Run, setup: Setup, event: Event) -> Finding:
        assert run.last_metric is not None and event.metric_before is not None
        return Finding(
            f"{growth_name(event)} has not recovered within {self.within}: {run.metric} was"
            f" {event.metric_before:.4g} before it and is {run.last_metric:.4g}"
            f" (train.recovery={setup.train.recovery:g})",
            event.index,
        )
