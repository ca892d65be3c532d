"""Everything a run uses and never changes: the plug-ins, the data, the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from progtrain.contracts import (
    AtGrowth,
    Augment,
    Growth,
    Metric,
    Mix,
    Monitor,
    OptimizerRecipe,
    Settle,
    Shape,
    StatePolicy,
    Transfer,
    Warmup,
)
from progtrain.data.sets import Batches
from progtrain.errors import ConfigError
from progtrain.hardware.engine import Engine
from progtrain.metrics.accuracy import Accuracy
from progtrain.mix.none import NoMix
from progtrain.objective import Criterion, plain
from progtrain.report.reporter import Reporter
from progtrain.run import Run
from progtrain.settings import Checkpoints, Nonfinite, Proof, Stopping, Training
from progtrain.transfer.inherit import Inherit

Save = Callable[[Run], None]
SaveBest = Callable[[Run, str], None]  # under a name


def no_best(run: Run, name: str) -> None:
    """Of a run that stores nothing."""


@dataclass(frozen=True)
class Setup:
    """What the stage machine works with."""

    model_factory: Callable[[Mapping[str, int | float]], nn.Module]
    growth: Growth
    warmup: Warmup
    settle: Settle
    scheduler: Shape
    at_growth: AtGrowth
    optimizer: OptimizerRecipe
    optimizer_state: StatePolicy
    batches: Batches
    engine: Engine
    train: Training
    stop: Stopping
    checkpoint: Checkpoints
    reporter: Reporter
    save: Save
    interrupted: Callable[[], bool]
    num_classes: int = 1  # logits of one target
    proof: Proof = field(default_factory=Proof)
    monitors: Mapping[str, Monitor] = field(default_factory=lambda: dict[str, "Monitor"]())
    transfer: Transfer = field(default_factory=Inherit)
    augments: Mapping[str, Augment] = field(default_factory=lambda: dict[str, "Augment"]())
    mix: Mix = field(default_factory=NoMix)
    criterion: Criterion = plain  # what training minimises
    metrics: Mapping[str, Metric] = field(default_factory=lambda: {"accuracy": Accuracy()})
    nonfinite: Nonfinite = field(default_factory=Nonfinite)
    save_best: SaveBest = no_best

    def __post_init__(self) -> None:
        if self.growth.keep_if is not None and self.train.metric.startswith("train/"):
            raise ConfigError(
                "growth.keep_if measures on the validation data, so train.metric must be one of its"
                f" metrics, got {self.train.metric!r}. Try train.metric=val/loss."
            )
        for monitor in self.monitors.values():
            monitor.check(self)
        for metric in self.metrics.values():
            metric.check(self)

    @property
    def bytes_per_target(self) -> float | None:
        """How many bytes of text a target stands for; None where the data are no text."""
        return self.batches.sets.bytes_per_target

    @cached_property
    def watching(self) -> Mapping[str, Monitor]:
        """The monitors that look after steps; others only measure at evaluations."""
        return {n: m for n, m in self.monitors.items() if not getattr(m, "idle", False)}

    @property
    def undoes(self) -> bool:
        """Whether a growth may be undone, so that the way back must stay open."""
        monitors = self.monitors.values()
        return self.growth.keep_if is not None or any(m.remedy == "rollback" for m in monitors)

    @property
    def lookback(self) -> int:
        """How many steps of losses and gradient norms the monitors look at."""
        return max((monitor.lookback for monitor in self.monitors.values()), default=0)
