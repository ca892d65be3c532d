"""A plan as plain data: one row a stage, and what the whole run comes to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from progtrain.clock import Moment


@dataclass(frozen=True)
class Held:
    """Bytes that a run holds between two steps, on its device; each storage counts once."""

    weights: int  # parameters and buffers
    gradients: int  # of what trains, once there are any
    optimizer: int
    kept: int  # average of the weights, teachers, networks that a growth may go back to

    @property
    def still(self) -> int:
        """All of it but the gradients."""
        return self.weights + self.optimizer + self.kept

    @property
    def between(self) -> int:
        """All of it: gradients stay until the next step begins."""
        return self.still + self.gradients


@dataclass(frozen=True)
class Row:
    """One stage, from the growth that begins it to the next one; None where nobody can know."""

    name: str
    what: str  # what its growth adds, in words
    params: int
    flops_per_sample: float  # forward and backward
    flops_per_step: float  # teachers included
    when: str  # when it begins, in words
    held: Held
    begins: Moment | None = None
    steps: int | None = None  # optimizer steps until the next stage
    flops: float | None = None  # until the next stage, growing included
    seconds: float | None = None  # the same, with evaluations
    step_seconds: float | None = None  # measured; None where nothing was rehearsed
    step_memory: int | None = None  # peak bytes of a training step, all that is held included
    activations: int | None = None  # the part of it that is not held: activations and workspace
    evaluation_seconds: float | None = None  # of the whole validation split, once
    evaluation_memory: int | None = None  # peak bytes of an evaluation
    growth_seconds: float | None = None  # with the evaluations before and after it
    growth_memory: int | None = None  # peak bytes of the growth: both networks, and the proof
    checkpoint: int | None = None  # bytes on disk

    @property
    def peak(self) -> int | None:
        """The most that this stage takes."""
        known = [self.step_memory, self.evaluation_memory, self.growth_memory]
        return max((each for each in known if each is not None), default=None)


@dataclass(frozen=True)
class Span:
    """From this to that, where a plan cannot know more; equal where it can."""

    least: float
    most: float


@dataclass(frozen=True)
class Totals:
    """The whole run; seconds are None where nothing was rehearsed."""

    steps: int | None
    flops: Span | None
    seconds: Span | None
    training: Span | None  # the parts of `seconds`
    evaluating: Span | None
    growing: Span | None
    storing: float | None
    checkpoint: int  # bytes of the largest one
    checkpoints: int  # how many stay
    disk: int  # bytes: those that stay, and the one that is being written
    disk_free: int
    memory: int | None  # peak bytes of the largest stage
    memory_free: int | None  # on the device, before anything of the run was there
    data: int  # bytes of the data set on the device


@dataclass(frozen=True)
class Rehearsal:
    """All that `plan.json` says."""

    rows: list[Row]
    totals: Totals
    rehearsed: bool
    device: str
    warnings: list[str] = field(default_factory=lambda: list[str]())

    def to_json(self) -> dict[str, Any]:
        """Numbers in steps, samples, FLOPs, seconds and bytes."""
        rows = [{**asdict(row), "peak_memory": row.peak} for row in self.rows]
        rest = {key: value for key, value in asdict(self).items() if key != "rows"}
        return {"stages": rows, **rest, "memory": INCLUDES}


INCLUDES = (
    "Memory is what tensors take on the device: weights, gradients, optimizer state, an average,"
    " teachers and ways back (those of the rehearsal), a batch, activations and torch's own"
    " workspace. The data set, Python and libraries (a CUDA context: about 0.5 GiB) come on top."
)
