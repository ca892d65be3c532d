"""What a comparison says, as plain data: the table, the page and the JSON tell the same numbers.

Costs are those of whole runs: growths, trials, teachers, monitors and what was rolled back are in
them. `quality` is the primary metric as the run reported it at its end, never its best. S_eq is
1 - C / C_baseline(quality): the share of the compute saved at equal quality.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What an arm is in a comparison."""

    BASELINE = "baseline"  # the size that the grown arms end with, from scratch, a full schedule
    FIXED = "fixed"  # another size that never grows
    GROWN = "grown"


@dataclass(frozen=True)
class Estimate:
    """A number over seeds with its 95 % interval; None where the data cannot say."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Summary:
    """A figure over the seeds of an arm."""

    n: int
    mean: float
    std: float | None  # of the sample, so it needs two


@dataclass(frozen=True)
class Difference:
    """An arm minus what it is compared with, in units of the metric; paired by seed if it can be.

    `p` is that of a two-sided t test, `p_holm` corrected for the number of arms (Holm 1979).
    `against` says in words what with: "baseline at equal FLOPs, from the fitted frontier".
    """

    against: str
    estimate: Estimate
    p: float | None
    p_holm: float | None
    paired: int  # pairs of seeds; 0 where it is no paired test


@dataclass(frozen=True)
class Row:
    """One evaluation of a run, for curves."""

    step: int
    flops: float
    seconds: float
    quality: float


@dataclass(frozen=True)
class Growth:
    """A growth of a run, for stage bands."""

    stage: str
    step: int
    flops: float
    seconds: float
    params_after: float


@dataclass(frozen=True)
class RunOf:
    """One run of an arm."""

    folder: str  # as given
    seed: int | None
    status: str  # done, failed, interrupted
    quality: float | None
    flops: float | None
    seconds: float | None
    steps: float | None
    params: float | None
    rows: tuple[Row, ...]
    growths: tuple[Growth, ...]
    error: str = ""


@dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but the seed."""

    name: str
    kind: Kind
    settings: dict[str, str]  # those in which arms differ
    runs: tuple[RunOf, ...]
    quality: Summary | None  # None where no run came to its end
    flops: Summary | None
    seconds: Summary | None
    steps: Summary | None
    params: float | None  # at the end
    peak_mib: float | None
    saving: Estimate | None  # S_eq against baselines of its own final size
    saving_fixed: Estimate | None  # S_eq against the best of all fixed sizes
    saving_note: str  # why there is none, or how far the frontier was stretched; else empty
    at_equal_flops: Difference | None
    at_equal_seconds: Difference | None
    at_equal_steps: Difference | None
    not_worse: bool | None  # within the margin, at the upper end of the interval at equal steps
    verdict: str  # "saves 23 % [11, 34] of the compute at equal loss", …


@dataclass(frozen=True)
class Frontier:
    """Quality over compute of runs that do not grow: loss = floor + scale * FLOPs ** -power.

    Where there are fewer than four budgets, straight lines in log FLOPs between `points`
    (form "lines"). `loss` is the metric where less is better, 1 - metric where more is.
    """

    name: str  # "baseline", "best fixed size"
    form: str  # "power law" or "lines"
    floor: float | None
    scale: float | None
    power: float | None
    points: tuple[tuple[float, float, str], ...]  # FLOPs, quality, arm
    curve: tuple[tuple[float, float], ...]  # FLOPs, quality: to draw


@dataclass(frozen=True)
class Unfair:
    """A reason to distrust the comparison."""

    what: str  # a word, such as "undecayed"
    text: str  # a sentence that says what to do
    arms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Everything that is told."""

    title: str
    metric: str
    mode: str  # max or min
    margin: float  # of non-inferiority, in units of the metric
    confidence: float  # 0.95
    arms: tuple[Arm, ...]
    frontiers: tuple[Frontier, ...]
    unfair: tuple[Unfair, ...]
    verdict: str  # of all of it
    varying: tuple[str, ...]  # settings in which arms differ
    commands: tuple[str, ...]  # that repeat it
