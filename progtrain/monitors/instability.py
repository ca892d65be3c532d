"""Growing too fast: training is less stable after a growth than before it.

Compares the losses and gradient norms of `window` steps after a growth with those of `window` steps
before it. A step of either that is not finite counts for nothing, but a loss after the growth that
is not finite is a finding. The variance is judged once the window is full, the rest every `every`
steps and before every evaluation, so nothing waits for the end of an epoch. The variance is that
around a straight line: a loss that falls faster than before is what growing is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import linear_regression

from progtrain.clock import Moment
from progtrain.errors import require
from progtrain.monitors.finding import Finding, Occasion, Watched
from progtrain.monitors.monitor import Watcher, growth_name, longer_than_nothing, told
from progtrain.run import Event, Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Instability(Watcher):
    """Finds growths after which the loss, its variance or the gradient norm leaps."""

    window: int = 20  # steps before and after a growth that are compared
    every: int = 5  # steps from one look to the next while a window is open
    loss: float = 1.5  # times the largest loss before
    variance: float = 3.0  # times the variance of the loss before
    gradient: float = 3.0  # times the largest gradient norm before
    hold: str = "2%"  # how long `adapt` holds the ramp of such a growth

    name = "instability"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(3 <= self.window <= 10_000, "window", self.window, "a whole number, 3 to 10000")
        most = f"a whole number, 1 to the window of {self.window}"
        require(1 <= self.every <= self.window, "every", self.every, most)
        for setting in ("loss", "variance", "gradient"):
            value = getattr(self, setting)
            require(value > 1, setting, value, "a number > 1", "Below it every growth is a leap.")
        longer_than_nothing(self.hold, "hold")

    @property
    def lookback(self) -> int:
        return 2 * self.window

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        new = told(run, self.name, event.index) is None
        return new and run.clock.step - event.moment.step < self.window

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        if occasion is Occasion.OBSERVED or run.recent is None:
            return Watched()
        findings = [
            finding
            for event in run.grown
            if self._looks(run, event, occasion) and (finding := self._look(run, event))
        ]
        return Watched(tuple(findings))

    def _looks(self, run: Run, event: Event, occasion: Occasion) -> bool:
        passed = run.clock.step - event.moment.step
        due = occasion is Occasion.BOUNDARY or passed == self.window or passed % self.every == 0
        return due and 0 < passed <= self.window and told(run, self.name, event.index) is None

    def _look(self, run: Run, event: Event) -> Finding | None:
        assert run.recent is not None
        grown, now = event.moment.step, run.clock.step
        before, after = (
            run.recent.between(grown - self.window, grown),
            run.recent.between(grown, now),
        )
        leaps = list(self._leaps(before, after, now - grown == self.window))
        if not leaps:
            return None
        steps = now - grown
        return Finding(
            f"{growth_name(event)} is unstable in the {steps} steps after it: {'; '.join(leaps)}",
            event.index,
        )

    def _leaps(
        self,
        before: tuple[Sequence[float], Sequence[float]],
        after: tuple[Sequence[float], Sequence[float]],
        is_full: bool,
    ) -> Iterator[str]:
        """What is larger than it may be, in words."""
        if not all(map(isfinite, after[0])):
            yield "the loss is not finite"
        old, new = [v for v in before[0] if isfinite(v)], [v for v in after[0] if isfinite(v)]
        if _leapt(old, new, max, self.loss):
            yield f"loss up to {max(new):.4g}, {max(old):.4g} before"
        if is_full and _leapt(old, new, scatter, self.variance):
            yield f"variance of the loss {scatter(new):.3g}, {scatter(old):.3g} before"
        old, new = [v for v in before[1] if isfinite(v)], [v for v in after[1] if isfinite(v)]
        if _leapt(old, new, max, self.gradient):
            yield f"gradient norm up to {max(new):.4g}, {max(old):.4g} before"


def scatter(values: Sequence[float]) -> float:
    """The variance of a series around the straight line that fits it best."""
    if len(values) < 3:
        return 0.0
    slope, start = linear_regression(range(len(values)), values)
    return sum((v - start - slope * t) ** 2 for t, v in enumerate(values)) / len(values)


def _leapt(
    old: Sequence[float], new: Sequence[float], of: Callable[[Sequence[float]], float], limit: float
) -> bool:
    """Whether a statistic of the new values is beyond `limit` times that of the old ones."""
    return len(old) >= 3 and bool(new) and of(new) > limit * of(old)
