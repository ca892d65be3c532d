"""What a growth is worth: the metric of the network with it against that without it.

Asked when a growth is integrated (of one without a life, `every` later), and again each `every`
after that. What is new is switched off for an evaluation on the validation data: blocks become
their input, modules give nothing, new units are read as zeros. The evaluations are charged to the
clock. A growth by copies that share out weights of the host has no such counterfactual; of it only
the metric is compared with that before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from progtrain.clock import Duration, Moment
from progtrain.errors import ConfigError, require
from progtrain.growth.counterfactual import contribution, evaluation_flops, measured, parts
from progtrain.monitors.finding import Finding, Occasion, Watched
from progtrain.monitors.monitor import Watcher, growth_name, longer_than_nothing, only_told, told
from progtrain.run import Event, Phase, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Measured:
    """A growth and what it is worth."""

    event: Event
    metric: float  # of the whole network
    worth: float | None = None  # None: not defined
    parts: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())
    evaluations: int = 1


@dataclass(frozen=True)
class Contribution(Watcher):
    """Finds growths, and parts of growths, without which the network would be as good."""

    threshold: float = 0.0  # a contribution that is too little, a fall that is too much
    every: str | None = "25%"  # from one measurement to the next; null: at the integration alone
    parts: bool = True  # the first time, measure each space, block and module of a growth as well

    name = "contribution"

    def __post_init__(self) -> None:
        super().__post_init__()
        good = isfinite(self.threshold) and self.threshold >= 0
        require(good, "threshold", self.threshold, "a finite number >= 0, in units of the metric")
        if self.every is not None:
            longer_than_nothing(self.every, "every")

    def check(self, setup: Setup) -> None:
        metric = setup.train.metric
        if not metric.startswith("val/"):
            raise ConfigError(
                "monitor=contribution measures on the validation data, so train.metric must be one"
                f" of its metrics, got {metric!r}. Try train.metric=val/accuracy."
            )

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        """Until it has been measured once: later ones only tell."""
        found = [told(run, key, event.index) for key in (self.name, only_told(self.name))]
        fresh = event.contribution is None and found == [None, None]
        return fresh and (event.alive or self.every is not None)

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        if occasion is Occasion.OBSERVED:
            return Watched()
        due = [event for event in run.grown if self._due(run, event, last)]
        seen = [self._measure(run, setup, event) for event in due]
        findings = [finding for each in seen for finding in self.findings(run, each)]
        return Watched(
            tuple(findings),
            {each.event.index: each.worth for each in seen if each.worth is not None},
            sum(each.evaluations for each in seen) * evaluation_flops(run, setup),
        )

    def _due(self, run: Run, event: Event, last: Moment) -> bool:
        if event.phase is not Phase.INTEGRATED:
            return False
        if event.since.step == run.clock.step > event.moment.step:
            return True
        if self.every is None or event.since.step > last.step:
            return False
        length = Duration.parse(self.every, "every")

        def passed(moment: Moment) -> int:
            begun = run.clock.count(event.since, length.unit)
            return int((run.clock.count(moment, length.unit) - begun) / length.value + 1e-9)

        return passed(run.clock.now) > passed(last)

    def _measure(self, run: Run, setup: Setup, event: Event) -> Measured:
        whole, each = measured(run, setup), parts(event)
        if event.shares or not each:
            return Measured(event, whole)
        worth = contribution(run, setup, event, whole)
        if not self.parts or len(each) == 1 or event.contribution is not None:
            return Measured(event, whole, worth, {}, 2)
        of_parts = {name: contribution(run, setup, part, whole) for name, part in each.items()}
        return Measured(event, whole, worth, of_parts, 2 + len(each))

    def findings(self, run: Run, seen: Measured) -> list[Finding]:
        """What is wrong with a growth that has been measured."""
        event, metric = seen.event, run.metric
        wrong = [*self._useless(metric, seen), *self._fallen(run, seen)]
        if wrong:
            return [Finding(f"{growth_name(event)} {'; '.join(wrong)}", event.index)]
        if seen.worth is None:
            why = "shares weights of the host out" if event.shares else "cannot be switched off"
            text = f"the contribution of {growth_name(event)} is not defined: it {why}"
            return [Finding(text, event.index, blames=False)]
        idle = [f"{n} {worth:+.4g}" for n, worth in seen.parts.items() if worth <= self.threshold]
        if not idle:
            return []
        text = f"of {growth_name(event)} parts contribute nothing to {metric}: {', '.join(idle)}"
        return [Finding(text, event.index, blames=False)]

    def _useless(self, metric: str, seen: Measured) -> list[str]:
        if seen.worth is None or seen.worth > self.threshold:
            return []
        without = ", ".join(f"{name} {worth:+.4g}" for name, worth in seen.parts.items())
        told = "harms" if seen.worth < 0 else "brought nothing"
        return [
            f"{told}: it contributes {seen.worth:+.4g} to {metric}, and {self.threshold:g} is too"
            " little" + (f" (its parts: {without})" if without else "")
        ]

    def _fallen(self, run: Run, seen: Measured) -> list[str]:
        before, sign = seen.event.metric_before, 1 if run.mode == "max" else -1
        if before is None or sign * (before - seen.metric) <= self.threshold:
            return []
        worse = "fell" if sign > 0 else "rose"
        return [f"{run.metric} {worse} from {before:.4g} before it to {seen.metric:.4g}"]
