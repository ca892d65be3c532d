"""The only notion of time: a clock that counts, and durations in any unit it counts in.

Everything that lasts (a run, a ramp, a gap between growths) is a `Duration`; everything that
happened has a `Moment`. No other module counts steps.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache

from progtrain.account import COMPILATION, TEACHERS, TRAINING, UNCHARGED, Account
from progtrain.errors import SettingError


class Unit(Enum):
    """What a duration counts; the value is the word a user writes."""

    STEP = "steps"
    EPOCH = "epochs"
    SAMPLE = "samples"
    FLOP = "flops"
    SECOND = "seconds"
    FRACTION = "%"


ALLOWED = "a length such as 200steps, 3epochs, 5000samples, 1e12flops, 60seconds or 20%"
_PATTERN = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]+|%)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training; `20%` is a share of the whole run."""

    value: float
    unit: Unit

    @staticmethod
    def parse(text: object, setting: str) -> Duration:
        """Read `200steps`, `3 epochs`, `20%`; raise `SettingError` for `setting` otherwise."""
        return _parse(str(text), setting)

    def __str__(self) -> str:
        if self.unit is Unit.FRACTION:
            return f"{self.value * 100:g}%"
        return f"{self.value:g}{self.unit.value}"


@lru_cache(maxsize=1024)  # lengths are read again at every step
def _parse(text: str, setting: str) -> Duration:
    match = _PATTERN.fullmatch(text)
    if match is None:
        hint = f"Say the unit: {text}steps?" if _is_number(text) else ""
        raise SettingError(setting, text, ALLOWED, hint)
    number, word = match.groups()
    units = [u for u in Unit if u.value in (word.lower(), word.lower() + "s")]
    if not units or not _is_number(number):
        raise SettingError(setting, text, ALLOWED)
    value = float(number)
    if value > 1e24:
        raise SettingError(setting, text, "at most 1e24", "Did you mean fewer digits?")
    if units[0] is Unit.FRACTION:
        if value > 100:
            raise SettingError(setting, text, "at most 100%")
        value /= 100
    return Duration(value, units[0])


def _is_number(text: object) -> bool:
    try:
        return math.isfinite(float(str(text)))
    except ValueError:
        return False


@dataclass(frozen=True)
class Moment:
    """A point in training: what had been spent by then."""

    step: int = 0  # optimizer steps
    samples: int = 0
    flops: float = 0.0  # a whole number
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """What else there is to count of an optimizer step."""

    taught: float = 0.0  # of its FLOPs, those of teachers
    tokens: int = 0  # targets of sequences
    compiled: bool = False  # whether it had to compile first


@dataclass
class Clock:
    """Counts optimizer steps, samples, FLOPs and seconds of training.

    What a run does in order to grow is part of its cost and charged as well: growths, trials,
    teachers, scores of samples, the evaluations of monitors and of `growth.keep_if`. Those that
    every run makes (`train.evaluate_every`) are not.
    """

    total: Duration  # length of the run; its unit is never FRACTION
    epoch_samples: int  # samples in one pass over the training set
    now: Moment = Moment()
    account: Account = field(default_factory=Account)  # what it went into

    def tick(self, samples: int, flops: float, seconds: float, step: Step = Step()) -> None:
        """Count one optimizer step; `flops` are all of it, teachers included."""
        whole, taught, now = round(flops), round(step.taught), self.now
        self.now = Moment(
            now.step + 1, now.samples + samples, int(now.flops) + whole, now.seconds + seconds
        )
        account = self.account.plus(TRAINING, whole - taught, 0.0 if step.compiled else seconds)
        if step.compiled:
            account = account.plus(COMPILATION, 0, seconds)
        if taught:
            account = account.plus(TEACHERS, taught, 0.0)
        self.account = replace(account, tokens=account.tokens + step.tokens)

    def charge(self, what: str, flops: float = 0.0, seconds: float = 0.0) -> None:
        """Count cost that is no optimizer step, by its word (account.py); FLOPs are whole."""
        whole, spent = round(flops), self.now
        self.account = self.account.plus(what, whole, seconds)
        if what not in UNCHARGED:
            self.now = replace(
                spent, flops=int(spent.flops) + whole, seconds=spent.seconds + seconds
            )

    @property
    def step(self) -> int:
        return self.now.step

    @property
    def epoch(self) -> float:
        return self.now.samples / self.epoch_samples

    @property
    def fraction(self) -> float:
        """How much of the run is over, in [0, 1]."""
        return min(1.0, self.count(self.now, self.total.unit) / self.total.value)

    def count(self, moment: Moment, unit: Unit) -> float:
        """What `moment` reads in `unit`."""
        match unit:
            case Unit.STEP:
                return moment.step
            case Unit.EPOCH:
                return moment.samples / self.epoch_samples
            case Unit.SAMPLE:
                return moment.samples
            case Unit.FLOP:
                return moment.flops
            case Unit.SECOND:
                return moment.seconds
            case Unit.FRACTION:
                return self.count(moment, self.total.unit) / self.total.value

    def progress(self, since: Moment, length: Duration, until: Moment | None = None) -> float:
        """Share of `length` that has passed from `since` to `until` (default: now), in [0, 1]."""
        if length.value == 0:
            return 1.0
        here = self.count(until or self.now, length.unit)
        passed = (here - self.count(since, length.unit)) / length.value
        # 1e-9: 0.1 + 0.2 style rounding must not add a step to a ramp
        return 1.0 if passed >= 1 - 1e-9 else max(0.0, passed)

    def crossed(self, since: Moment, every: Duration) -> bool:
        """Whether a multiple of `every` lies between `since` and now."""

        def whole(moment: Moment) -> int:
            return int(self.count(moment, every.unit) / every.value + 1e-9)

        return whole(self.now) > whole(since)

    def in_samples(self, length: Duration, batch_size: int) -> float | None:
        """How many training samples `length` is; None for FLOPs and seconds, which no one knows."""
        match length.unit:
            case Unit.STEP:
                return length.value * batch_size
            case Unit.EPOCH:
                return length.value * self.epoch_samples
            case Unit.SAMPLE:
                return length.value
            case Unit.FRACTION:
                whole = self.in_samples(self.total, batch_size)
                return None if whole is None else length.value * whole
            case _:
                return None

    def after_step(self, samples: int, flops: float) -> Moment:
        """The moment at which the coming step will have ended; seconds at the average pace."""
        now = self.now
        pace = 1 + 1 / max(now.step, 1)
        return Moment(now.step + 1, now.samples + samples, now.flops + flops, now.seconds * pace)
