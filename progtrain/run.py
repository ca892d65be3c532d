"""The nouns: everything a run is, and nothing else in progtrain holds state.

A checkpoint is a `Run`, no more and no less. Plug-ins are frozen dataclasses of hyperparameters;
what they must remember lives here, so a resume needs no code of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import isfinite, nan
from typing import TYPE_CHECKING

from progtrain.clock import Clock, Duration, Moment
from progtrain.curriculum.none import NoCurriculum
from progtrain.curriculum.view import View
from progtrain.errors import ConfigError
from progtrain.spent import Spent

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from progtrain.contracts import Curriculum, Operator
    from progtrain.growth.edits import Edit
    from progtrain.growth.inheritance import Inheritance
    from progtrain.growth.rollback import Before
    from progtrain.growth.trial import Trial
    from progtrain.growth.widen_space import Slab
    from progtrain.optimizers.group import OptimizerSet
    from progtrain.recent import Recent

# Builds a network: `template` the start network with a block where it has none.
Template = Callable[[], "nn.Module"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def no_template() -> nn.Module:
    """The template of a network that nobody can build anew."""
    raise ConfigError("It is not known how this network builds a block.")


class Phase(Enum):
    """Where a growth is in its life; the order is the order of life."""

    ISOLATE = "isolate"  # the host is frozen, only what is new learns
    WARMUP = "warmup"  # what is new is blended in
    HOLD = "hold"  # a ramp that waits at its alpha; from here alone it may be retargeted
    SETTLE = "settle"  # a lower learning rate for everything
    CONSOLIDATE = "consolidate"  # no structural change
    INTEGRATED = "integrated"  # part of the host
    ROLLED_BACK = "rolled back"  # undone: the host is as it was before


class StopReason(Enum):
    """Why training or growing ended; the value tells the user what to change."""

    DURATION = "The planned length is over. Raise train.duration to train on."
    TARGET = "The target metric is reached. Raise stop.target to train on."
    FLOPS = "The FLOP limit is spent. Raise stop.max_flops to train on."
    SECONDS = "The time limit is spent. Raise stop.max_seconds to train on."
    EARLY_STOPPING = (
        "The metric has had no new best for stop.early_stopping. Raise it, or set it to null, to"
        " train on."
    )
    NO_IMPROVEMENT = (
        "The last growth brought no improvement. Raise stop.patience, or grow by something else."
    )
    STAGES_DONE = "Every declared stage has grown. Declare more under growth.stages to grow on."
    MAX_STAGES = "The maximum number of growths is reached. Raise growth.max_stages to grow on."
    BUDGET = (
        "No declared growth fits into the rest of the budget. Raise growth.max_params (or"
        " max_flops, max_seconds) to grow on."
    )
    NOTHING_TO_GROW = "This policy never grows. Choose growth=plateau, budget or schedule to grow."
    MONITOR = (
        "A monitor has stopped the run, and its finding says why. Choose a longer warmup.length or"
        " a smaller optimizer.lr, or monitor=none to train on."
    )
    DEBUGGED = "The debug mode is through. Leave debug=<mode> out to train."
    INTERRUPTED = "Interrupted. The last checkpoint is complete; resume=<directory> continues it."


@dataclass(frozen=True)
class Stage:
    """One declared step of the architecture curriculum, found to be due."""

    name: str
    operator: Operator
    cause: str = ""  # why now, in words
    at: Duration | None = None  # its time since the start, where that is known beforehand
    consolidation: str | None = None  # a length of its own; None: the policy's
    candidates: Mapping[str, Stage] = field(default_factory=lambda: dict[str, "Stage"]())
    trial: Trial | None = None  # how the best candidate is found, where there are any
    probed: float = 0.0  # FLOPs that choosing it took

    def because(self, cause: str) -> Stage:
        """The same stage and candidates, for that cause."""
        each = {name: stage.because(cause) for name, stage in self.candidates.items()}
        return replace(self, cause=cause, candidates=each)


@dataclass(frozen=True)
class Event:
    """One growth that happened."""

    index: int  # 0 for the run's first growth
    stage: str
    cause: str
    edit: Edit
    moment: Moment  # when it happened
    phase: Phase
    since: Moment  # when the phase began
    slabs: tuple[Slab, ...]  # the new entries, under the names tensors have now
    blocks: tuple[str, ...]  # the new blocks, under the names modules have now
    params_before: int
    params_after: int
    flops_before: float  # of one sample, forward and backward
    flops_after: float
    promised: bool  # operator or warmup promised to preserve the function
    preservation_error: float  # max |change of output| / max |output| on the probe batch
    metric_before: float | None  # primary metric at the last evaluation before
    metric_after: float | None = None  # primary metric directly after, same weights
    output_change: float = 0.0  # max |change of output| on the probe batch
    loss_before: float = 0.0  # on the probe batch
    loss_after: float = 0.0
    cost: float = 0.0  # FLOPs that choosing its values took
    seconds: float = 0.0  # what the growth took
    alpha: float = 1.0  # strength of the new part now
    inserted: tuple[str, ...] = ()  # new modules beside or behind others, under their names now
    shares: bool = False  # weights of the host were changed to make room
    consolidation: str | None = None  # a length of its own; None: the policy's
    rate: float = 1.0  # the learning rate's multiplier when it happened
    recovered: Moment | None = None  # when the metric was back at its value before
    stretch: float = 1.0  # factor on the lengths of its warmup
    ramped: float = 0.0  # share of the ramp that was over when the present phase began
    hold: str = ""  # how long the ramp waits, while it does
    undone: str = ""  # why it was rolled back
    lost: float = 0.0  # FLOPs that were spent on it and given up
    heads: tuple[str, ...] = ()  # new heads, under their names now
    inherited: Inheritance | None = None  # what became of every tensor
    contribution: float | None = None  # what the metric would lose without it, when last measured

    @property
    def alive(self) -> bool:
        return self.phase not in (Phase.INTEGRATED, Phase.ROLLED_BACK)

    def moved(self, edit: Edit) -> Event:
        """The same event after `edit` has moved modules and entries."""
        return replace(
            self,
            slabs=edit.follow(self.slabs),
            blocks=tuple(edit.rename(b) for b in self.blocks),
            inserted=tuple(edit.rename(name) for name in self.inserted),
            heads=tuple(edit.rename(name) for name in self.heads),
        )


@dataclass(frozen=True)
class Observation:
    """What an evaluation boundary saw; `metrics` by name, such as `val/accuracy`."""

    moment: Moment
    epoch: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Probe:
    """A fixed batch of training data on which growth is traced and checked."""

    x: Tensor  # (batch, ...)
    y: Tensor  # (batch,)

    def at(self, place: device) -> Probe:
        """The same batch on another device."""
        return Probe(self.x.to(place), self.y.to(place))


@dataclass(frozen=True)
class Teacher:
    """The network as it was before a growth, frozen, for those that come after it to learn of."""

    growth: int  # index of that growth
    stage: str
    since: Moment  # when it began to teach
    model: nn.Module  # in evaluation mode, blending what it was blending then
    events: tuple[Event, ...]  # the growths that it is blending
    flops: float  # of one sample, forward
    device: str  # where it computes: same, cpu
    precision: str  # of its weights: same, bf16, fp16


@dataclass
class Run:
    """All state of a run."""

    seed: int
    clock: Clock
    model: nn.Module
    optimizer: OptimizerSet
    probe: Probe
    metric: str  # primary metric, such as val/accuracy
    mode: str  # max or min
    params: int = 0  # of the network now
    flops: float = 0.0  # of one training sample, forward and backward, of the network now
    full_params: int = 0  # of the model at its full size, as configured
    batch_size: int = 1  # samples of one optimizer step
    recent: Recent | None = None  # losses and gradient norms of the last steps, for monitors
    accumulate: int = 1  # forward passes of one optimizer step
    evaluated: int = 0  # samples of one evaluation
    average: nn.Module | None = None  # the moving average of the weights, where one is kept
    template: Template = no_template
    blank: Template = no_template  # builds the network that the run started with
    curriculum: Curriculum = field(default_factory=NoCurriculum)
    recurring: bool = False  # whether the curriculum starts again with every growth
    order: Tensor | None = None  # training samples (N,), easiest first, where they are ranked
    view: View = field(default_factory=View)  # of the coming step; follows from the clock
    # of a sample as the coming step sees it, teachers included; None: full size, nothing frozen
    view_flops: float | None = None
    view_taught: float = 0.0  # of it, the teachers'
    frozen: tuple[str, ...] = ()  # parameters that do not train now; follows from the events
    evaluation_flops: float = 0.0  # of one sample, forward, of the network and its average
    ways_back: dict[int, Before] = field(default_factory=lambda: dict[int, "Before"]())
    teachers: list[Teacher] = field(default_factory=lambda: list[Teacher]())  # oldest first
    distilled: Tensor | None = None  # distillation loss of the last step, on the device
    withheld: bool | Tensor = False  # whether the last step changed nothing; maybe on the device
    norm: Tensor | None = None  # of the last step's gradients before clipping, on the device
    spent: Spent = field(default_factory=Spent)  # wall-clock time of this process
    anchors: list[Before] = field(default_factory=lambda: list["Before"]())  # nonfinite=rollback
    events: list[Event] = field(default_factory=lambda: list[Event]())
    history: list[Observation] = field(default_factory=lambda: list[Observation]())
    memory: dict[str, Json] = field(default_factory=lambda: dict[str, Json]())
    grown_out: StopReason | None = None  # why growth ended, once it has
    stopped: StopReason | None = None
    test: Mapping[str, float] | None = None  # metrics on the test split, once, at the end
    _seen: tuple[int, tuple[tuple[Moment, float], ...]] = (0, ())  # of so many evaluations

    @property
    def grown(self) -> list[Event]:
        """Growths that have not been undone."""
        return [event for event in self.events if event.phase is not Phase.ROLLED_BACK]

    @property
    def edits(self) -> list[Edit]:
        """What makes the network of now out of the start network."""
        return [event.edit for event in self.grown]

    def rebuilt(self, edits: Iterable[Edit]) -> nn.Module:
        """A network of the shape that `edits` give, with the values of a new one."""
        model = self.blank()
        for edit in edits:
            edit.apply(model, self.template)
        return model

    @property
    def step_flops(self) -> float:
        """FLOPs of the coming optimizer step: of the network, and a forward of every teacher."""
        if self.view_flops is not None:
            return self.batch_size * self.view_flops
        return self.batch_size * (self.flops + sum(teacher.flops for teacher in self.teachers))

    @property
    def step_taught(self) -> float:
        """FLOPs of the coming optimizer step that are its teachers'."""
        if self.view_flops is not None:
            return self.batch_size * self.view_taught
        return self.batch_size * sum(teacher.flops for teacher in self.teachers)

    @property
    def step_tokens(self) -> int:
        """Targets of the coming optimizer step, where a sample is a sequence."""
        if self.probe.y.ndim < 2:
            return 0
        return self.batch_size * (self.view.length or self.probe.y[0].numel())

    @property
    def living(self) -> list[Event]:
        """Growths still in their life cycle."""
        return [event for event in self.events if event.alive]

    @property
    def last_metric(self) -> float | None:
        """The primary metric at the last evaluation."""
        return self.history[-1].metrics.get(self.metric) if self.history else None

    @property
    def seen(self) -> tuple[tuple[Moment, float], ...]:
        """Every observation of the primary metric that is finite; asked at every step."""
        if self._seen[0] != len(self.history):
            values = ((o.moment, o.metrics.get(self.metric, nan)) for o in self.history)
            finite = tuple((moment, value) for moment, value in values if isfinite(value))
            self._seen = len(self.history), finite
        return self._seen[1]

    @property
    def best_metric(self) -> float | None:
        """The best value of the primary metric so far."""
        values = [value for _, value in self.seen]
        if not values:
            return None
        return max(values) if self.mode == "max" else min(values)
