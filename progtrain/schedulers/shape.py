"""What a learning-rate shape is told: the time, and nothing it could change.

torch's scheduler objects raise or overshoot when a parameter group joins at a growth, so ours are
pure functions of `When`; a test holds each against torch's own class where nothing grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from progtrain.clock import Clock, Duration, Moment, Unit
from progtrain.errors import SettingError, require


@dataclass(frozen=True)
class When:
    """The time of the coming optimizer step, as a learning-rate shape sees it."""

    clock: Clock
    now: Moment  # what has been spent before the coming step
    after: Moment = field(kw_only=True)  # what will have been spent: `Clock.after_step`
    start: Moment = field(default=Moment())  # where this shape began: the run, or a growth
    metrics: tuple[tuple[Moment, float], ...] = ()  # evaluations of the primary metric since then
    growths: tuple[Moment, ...] = ()  # when the network grew, oldest first like `metrics`

    @property
    def fraction(self) -> float:
        """Share of the shape's horizon (from `start` to the end of the run) that is over."""
        return self._fraction(self.now)

    @property
    def step_share(self) -> float:
        """Share of the horizon that the coming step takes; 0 where only seconds are counted."""
        return self._fraction(self.after) - self._fraction(self.now)

    def elapsed(self, length: Duration) -> float:
        """How many times `length` has passed since `start`; `%` are shares of the horizon."""
        return self._elapsed(length, self.now)

    def completed(self, length: Duration) -> int:
        """How many whole times `length` has passed: what torch counts when stepped each epoch."""
        return math.floor(self.elapsed(length) + 1e-9)  # 0.1 + 0.2 rounding must not lose one

    def reached(self, length: Duration) -> float:
        """Share of a rise over `length` that the coming step completes, in [0, 1].

        It counts the coming step, so the first step of a rise is trained and not multiplied by 0.
        """
        return min(1.0, self._elapsed(length, self.after)) if length.value else 1.0

    def reached_since(self, moment: Moment, length: Duration) -> float:
        """The same for a rise that began at `moment`; `%` are shares of the whole run."""
        return self.clock.progress(moment, length, until=self.after)

    def share(self, length: Duration, setting: str) -> float:
        """`length` as a share of the horizon, for what is counted back from the end.

        Only a share, or the unit of the run's own length, says where that is; for any other this
        raises `SettingError` at the first step.
        """
        total = self.clock.total
        if length.unit is Unit.FRACTION:
            return length.value
        if length.unit is not total.unit:
            allowed = f"a share of the run, or in {total.unit.value} as the run's length is"
            raise SettingError(setting, str(length), allowed, "Did you mean 20%?")
        return min(1.0, length.value / self._horizon())

    def restarted(self, moment: Moment) -> When:
        """The same time, seen by a shape that begins at `moment`."""
        since = tuple(m for m in self.metrics if m[0].step > moment.step)
        return replace(self, start=moment, metrics=since)

    def _horizon(self) -> float:
        total = self.clock.total
        return max(total.value - self.clock.count(self.start, total.unit), 1e-12)

    def _passed(self, unit: Unit, moment: Moment) -> float:
        return self.clock.count(moment, unit) - self.clock.count(self.start, unit)

    def _fraction(self, moment: Moment) -> float:
        return min(1.0, self._passed(self.clock.total.unit, moment) / self._horizon())

    def _elapsed(self, length: Duration, moment: Moment) -> float:
        if length.unit is Unit.FRACTION:
            return self._fraction(moment) / length.value
        return self._passed(length.unit, moment) / length.value


def positive(text: object, setting: str) -> Duration:
    """Read a length that may not be 0, because time is divided by it."""
    length = Duration.parse(text, setting)
    require(length.value > 0, setting, text, "a length greater than 0")
    return length


def is_number(value: object, low: float, high: float = math.inf) -> bool:
    """Whether a configured value is a finite number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and low <= value <= high


def is_whole(value: object, low: int) -> bool:
    """Whether a configured value is a whole number >= low."""
    return isinstance(value, int) and is_number(value, low)
