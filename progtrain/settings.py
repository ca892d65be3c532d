"""The settings of a run that belong to no group: how long, when to stop, what to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.errors import require
from progtrain.metrics import canonical, instead, logged, tested

EXPORTS = ("state_dict", "torch_export")


def whole(value: object) -> bool:
    """Whether `value` is a whole number, `1e3` and `16.0` included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value == int(value)


def _at_least(plugin: object, setting: str, lowest: int, hint: str = "") -> None:
    """Check a whole number and store it as `int`."""
    value = getattr(plugin, setting)
    require(whole(value) and value >= lowest, setting, value, f"a whole number >= {lowest}", hint)
    object.__setattr__(plugin, setting, int(value))


def _lasting(plugin: object, setting: str, example: str) -> None:
    """Check a length of training that is not 0."""
    value = getattr(plugin, setting)
    require(Duration.parse(value, setting).value > 0, setting, value, "longer than 0", example)


def _limit(plugin: object, setting: str) -> None:
    value = getattr(plugin, setting)
    good = value is None or (_number(value) and value > 0)
    require(good, setting, value, "a finite number > 0, or null for no limit")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Training:
    """How long and on what batches a run trains, and what it watches."""

    duration: str = "30epochs"  # length of the run; growing included, not added
    batch_size: int = 64  # samples of one forward pass
    accumulate: int = 1  # forward passes of one optimizer step
    evaluate_every: str = "1epoch"
    metric: str = "val/accuracy"  # what triggers, stopping and sweeps look at
    mode: str = "max"  # whether more of the metric is better (max) or less (min)
    columns: Sequence[str] = ()  # further metrics in the table of a multirun
    clip: float = 0.0  # largest gradient norm; 0 clips nothing
    recovery: float = 0.99  # share of the metric before a growth that counts as recovered
    ema: float = 0.0  # decay a step of the moving average of weights; 0 keeps none
    heads: str = "newest"  # which of several heads learn: newest, or all
    answers: str | None = None  # name of the head that answers in evaluation; None: the newest
    freeze: Sequence[str] = ()  # patterns of parameters that do not train
    thaw: str | None = None  # when they begin to; None: never

    def __post_init__(self) -> None:
        _lasting(self, "duration", "Try 30epochs.")
        share = str(self.duration).strip().endswith("%")
        allowed = "a length in steps, epochs, samples, flops or seconds"
        require(not share, "duration", self.duration, allowed, "It is what shares are shares of.")
        _at_least(self, "batch_size", 1)
        _at_least(self, "accumulate", 1)
        _lasting(self, "evaluate_every", "Try 1epoch.")
        self._check_metrics()
        require(self.mode in ("max", "min"), "mode", self.mode, "max or min")
        good = _number(self.clip) and self.clip >= 0
        require(good, "clip", self.clip, "a finite number >= 0 (0 clips nothing)")
        good = _number(self.recovery) and 0 < self.recovery <= 1
        require(good, "recovery", self.recovery, "in (0, 1]", "Try train.recovery=0.99.")
        require(self.heads in ("newest", "all"), "heads", self.heads, "newest or all")
        named = self.answers is None or bool(self.answers.strip())
        require(named, "answers", self.answers, "the name of a head, or null", "Try first.")
        named = all(str(pattern).strip() for pattern in self.freeze)
        hint = "Try train.freeze=[head.*]."
        require(named, "freeze", list(self.freeze), "a list of patterns of parameters", hint)
        if self.thaw is not None:
            _lasting(self, "thaw", "null never thaws.")
        good = _number(self.ema) and 0 <= self.ema < 1
        require(good, "ema", self.ema, "in [0, 1) (0 keeps no average)", "Try train.ema=0.99.")

    def _check_metrics(self) -> None:
        """Those that are named must be counted; a short name becomes the full one."""
        averaged = str(self.metric).startswith("val/ema/") and not self.ema
        hint = "Set train.ema, such as train.ema=0.99." if averaged else instead(str(self.metric))
        found = None if averaged else canonical(str(self.metric))
        allowed = f"a metric that evaluations log ({', '.join(logged())})"
        require(found is not None, "metric", self.metric, allowed, hint.strip())
        object.__setattr__(self, "metric", found)
        columns = [tested(str(name)) for name in self.columns]
        wrong = [str(name) for name, full in zip(self.columns, columns, strict=True) if not full]
        hint = instead(wrong[0]).strip() if wrong else ""
        allowed = f"a list of metrics, of {', '.join(logged())}, test/…"
        require(not wrong, "columns", list(self.columns), allowed, hint)
        object.__setattr__(self, "columns", tuple(str(name) for name in columns))


@dataclass(frozen=True)
class Stopping:
    """What ends a run before its length is over; null means nothing does."""

    target: float | None = None  # value of train.metric that is enough
    max_flops: float | None = None  # of training, growing, trials, teachers, monitors
    max_seconds: float | None = None
    max_params: int | None = None  # of the largest planned network; a larger plan is refused
    patience: int | None = None  # growths in a row that bring no improvement
    early_stopping: str | None = None  # a length without a new best of train.metric
    min_delta: float = 0.0  # early_stopping: by how much a new best must beat the old one

    def __post_init__(self) -> None:
        good = self.target is None or _number(self.target)
        require(good, "target", self.target, "a finite number, or null for no target")
        _limit(self, "max_flops")
        _limit(self, "max_seconds")
        _limit(self, "max_params")
        if self.patience is not None:
            _at_least(self, "patience", 1)
        if self.early_stopping is not None:
            _lasting(self, "early_stopping", "Try 5epochs, or null for none.")
        good = _number(self.min_delta) and self.min_delta >= 0
        require(good, "min_delta", self.min_delta, "a finite number >= 0", "Try 0.001.")


@dataclass(frozen=True)
class Checkpoints:
    """How often a run is stored, and how many of the stored ones stay."""

    every: str = "25%"
    keep: int = 2
    best: int = 0  # how many of the best by train.metric stay beside them

    def __post_init__(self) -> None:
        _lasting(self, "every", "Try 25%.")
        _at_least(self, "keep", 2, "One of them may be damaged.")
        _at_least(self, "best", 0, "0 keeps none, 3 the three best.")


@dataclass(frozen=True)
class Nonfinite:
    """What follows a loss or a gradient that is not finite.

    It never reaches the weights: the update of that step is withheld whatever the policy.
    """

    policy: str = "raise"  # raise, skip or rollback
    in_a_row: int | None = 5  # skip: at most so many steps in a row; null: no limit
    most: int | None = 100  # skip: at most so many steps of a run; null: no limit
    back: str = "5%"  # rollback: to a state that is at least so old, at most twice that
    rollbacks: int = 3  # rollback: at most so many

    def __post_init__(self) -> None:
        policies = ("raise", "skip", "rollback")
        require(self.policy in policies, "policy", self.policy, "one of " + ", ".join(policies))
        for name in ("in_a_row", "most"):
            if getattr(self, name) is not None:
                _at_least(self, name, 1, "null sets no limit.")
        _lasting(self, "back", "Try 5%.")
        _at_least(self, "rollbacks", 1)


@dataclass(frozen=True)
class Planning:
    """How `task=plan` comes to its numbers."""

    rehearse: bool = True  # take real steps of every stage on a copy; else everything is counted
    steps: int = 2  # optimizer steps of each stage that are timed; two more are always taken

    def __post_init__(self) -> None:
        _at_least(self, "steps", 1)
        require(self.steps <= 1000, "steps", self.steps, "at most 1000", "Two are enough.")


@dataclass(frozen=True)
class Reporting:
    """What a run leaves for people to look at when it is over."""

    page: bool = True  # report.html: curves, growths, notes and settings, in one file


@dataclass(frozen=True)
class Proof:
    """What a growth must prove on a probe batch before it happens."""

    tolerance: float | None = None  # largest relative change of the output that passes for none
    required: bool = False  # hold growths that promise nothing to it as well

    def __post_init__(self) -> None:
        good = self.tolerance is None or (_number(self.tolerance) and self.tolerance >= 0)
        hint = "null: 1e-10 in float64, 1e-4 in float32, 1e-2 in half precision."
        require(good, "tolerance", self.tolerance, "a finite number >= 0, or null", hint)


@dataclass(frozen=True)
class Prediction:
    """What `task=predict` tells of each input."""

    top_k: int | None = None  # likeliest labels told (null: 5), or tokens drawn from (null: all)
    count: int = 200  # tokens that follow a prompt
    temperature: float = 1.0  # of drawing them; 0 takes the likeliest
    average: bool = False  # by the moving average of the weights
    batch_size: int = 64  # samples of one forward pass

    def __post_init__(self) -> None:
        if self.top_k is not None:
            _at_least(self, "top_k", 1, "null: 5 labels, or every token.")
        _at_least(self, "count", 1)
        good = _number(self.temperature) and self.temperature >= 0
        allowed = "a finite number >= 0 (0 takes the likeliest token)"
        require(good, "temperature", self.temperature, allowed)
        _at_least(self, "batch_size", 1)


@dataclass(frozen=True)
class Exporting:
    """As what `task=export` writes a network."""

    format: str = "state_dict"
    average: bool = False  # the moving average of the weights

    def __post_init__(self) -> None:
        allowed = "one of " + ", ".join(EXPORTS)
        require(self.format in EXPORTS, "format", self.format, allowed)


@dataclass(frozen=True)
class Comparing:
    """How `task=compare` judges."""

    margin: float | None = None  # that still counts as equal, in units of the metric
    bootstrap: int = 2000  # draws of the means for the interval of S_eq
    seed: int = 0  # of those draws

    def __post_init__(self) -> None:
        good = self.margin is None or (_number(self.margin) and self.margin >= 0)
        hint = "null: a standard deviation between seeds, at least 0.2 % of a loss."
        require(good, "margin", self.margin, "a finite number >= 0, or null", hint)
        _at_least(self, "bootstrap", 200, "Fewer cannot tell where 95 % end.")
        _at_least(self, "seed", 0)
