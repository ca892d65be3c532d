"""What training asks of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from progtrain.build import Parts
    from progtrain.clock import Moment
    from progtrain.curriculum.view import View
    from progtrain.data.draws import Draws
    from progtrain.data.sets import Batches, Sets
    from progtrain.debug.around import Around
    from progtrain.hardware.engine import Engine
    from progtrain.loggers.logger import Book, Tracker
    from progtrain.machine import Machine
    from progtrain.metrics.tally import Answers, Counted
    from progtrain.objective import Criterion
    from progtrain.optimizers.group import OptimizerSet, State
    from progtrain.run import Run, StopReason
    from progtrain.schedulers.shape import When
    from progtrain.setup import Setup


class Shape(Protocol):
    """The learning rate over time as a multiplier of a group's base rate (group `scheduler`)."""

    def multiplier(self, when: When) -> float:
        """A pure function of time."""
        ...


class AtGrowth(Protocol):
    """What the learning rate does at a growth (group `at_growth`)."""

    def multiplier(self, shape: Shape, when: When) -> float:
        """The shape's multiplier, told about growths."""
        ...


class Metric(Protocol):
    """A figure of evaluations beside the loss (group `metric`), logged as `val/<its name>`.

    Counted batch by batch on the device: nothing here may wait for it but `value`. The states of
    two batches are added up; a class that has others says in a mapping `reductions` by the names of
    states which are joined by max, min or cat (behind each other).
    """

    @property
    def smaller(self) -> bool:
        """Whether less of it is better."""
        ...

    def check(self, setup: Setup) -> None:
        """Raise `ConfigError` where it would say nothing of these data."""
        ...

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        """The states of a batch, by name."""
        ...

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float | None:
        """The figure over all that was counted; None where a head cannot tell."""
        ...


class OptimizerRecipe(Protocol):
    """Hyperparameters of an optimizer (group `optimizer`)."""

    def build(self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]) -> OptimizerSet:
        """Optimizers over `parameters`, each in exactly one group.

        `sliced` names tensors that hold entries of different ages: whatever the optimizer counts
        (Adam's step) must be counted for each of their entries.
        """
        ...

    def per_entry(self, name: str, parameter: nn.Parameter, state: State) -> State:
        """The state of a tensor that becomes sliced: counts as tensors of its shape."""
        ...

    def begun(self, state: State, new: Tensor) -> State:
        """The state of a tensor that has grown, with what its `new` entries must begin with."""
        ...


class Data(Protocol):
    """A data set (group `data`)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch."""
        ...

    @property
    def num_classes(self) -> int | None:
        """None where it follows from the data: then a method `count_classes() -> int` tells it."""
        ...

    def load(self) -> Sets:
        """Read it; the same settings give the same split."""
        ...


class Augment(Protocol):
    """Varies training images a batch at a time (group `augment`, of which several may follow one
    another). Probes, evaluations and scores of samples see images as they are."""

    @property
    def normalised(self) -> bool:
        """Whether it takes normalised images (float32), else the data set's own pixels."""
        ...

    def check(self, sets: Sets) -> None:
        """Raise `ConfigError` for data that it cannot work with."""
        ...

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """Images (B, channels, height, width) of the same shape and type, on the same device.

        All that is random comes from `draws`, so that a resume sees the same images.
        """
        ...


class Mix(Protocol):
    """Mixes the samples of a training batch with each other (group `mix`)."""

    def check(self, sets: Sets) -> None:
        """Raise `ConfigError` for data that it cannot work with."""
        ...

    def __call__(
        self, x: Tensor, y: Tensor, num_classes: int, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Inputs (B, ...) of the same shape; labels (B,), or probabilities (B, num_classes)."""
        ...


class Loss(Protocol):
    """What training minimises (group `loss`); `val/loss` is plain cross entropy whatever it is."""

    def criterion(self, sets: Sets, num_classes: int, device: torch.device) -> Criterion:
        """The loss as a function (logits_NK, targets, reduction `mean` or `none`); targets are
        whole numbers y_N, or probabilities p_NK where samples are mixed.

        Raises `ConfigError` for data that it cannot work with.
        """
        ...


class Curriculum(Protocol):
    """How training data change over time (group `curriculum`)."""

    @property
    def sets(self) -> frozenset[str]:
        """Which fields of a view are its own; no two curricula of a combination share one."""
        ...

    def view(self, run: Run, since: Moment) -> View:
        """What the coming step sees: a pure function of the run's clock, counted from `since`.

        It must need nothing of the run but the clock and the shape of the probe's samples.
        """
        ...

    def check(self, run: Run) -> None:
        """Before the first step: raise `ConfigError` for data or networks it cannot work with."""
        ...

    def order(self, run: Run, setup: Setup) -> Tensor | None:
        """Indices of the training samples (N,), easiest first, where it needs an order.

        Asked once a run and stored with it; the clock is charged here.
        """
        ...


class Debug(Protocol):
    """A way to look into a run (group `debug`): around the machine, never inside it."""

    @property
    def status(self) -> str:
        """The run's `status` in result.json; anything but `done` is no result."""
        ...

    def trimmed(self, parts: Parts) -> Parts:
        """The parts of the run to be made; raises `ConfigError` where it cannot look into them."""
        ...

    def cut(self, batches: Batches, size: int) -> Batches:
        """The data of the run to be made; `size` samples are one optimizer step."""
        ...

    def drive(self, machine: Machine, around: Around) -> StopReason:
        """Take the machine to its end; what was seen goes to `around`."""
        ...


class Logger(Protocol):
    """Tells a run to a tracker beside its own files (group `logger`).

    Whatever the tracker raises, once it is opened, is told in one warning, and the run goes on.
    """

    def where(self, book: Book) -> str:
        """Where the run can be looked at, in one line; empty for nowhere."""
        ...

    def open(self, book: Book) -> Tracker | None:
        """A tracker for the run, the same one for a run that goes on; None tells nobody."""
        ...


class Hardware(Protocol):
    """Where and in which precision (group `hardware`)."""

    def processes(self) -> int:
        """How many processes a run is; raises where this machine lacks a device."""
        ...

    def suits(self, optimizer: OptimizerRecipe) -> None:
        """Raise `ConfigError` for an optimizer that cannot step what lies here."""
        ...

    def open(self) -> Engine:
        """Check that the device and the precision exist; set torch's switches."""
        ...
