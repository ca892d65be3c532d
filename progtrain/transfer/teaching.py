"""What a student learns of its teachers: knowledge distillation (Hinton et al., arXiv 1503.02531).

loss = alpha · T² · Σᵢ wᵢ KL(teacherᵢ ‖ student) + (1 − alpha) · loss on the labels, where both
softmaxes are at temperature T and the weights wᵢ sum to 1 over the teachers that there are. KL is
computed from log-probabilities, in float32 at least, so that neither a low temperature nor large
logits make a probability 0 whose logarithm is then taken.

Suffixes: N targets (samples, or samples × positions), K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from progtrain.clock import Duration
from progtrain.errors import require

DEVICES = ("same", "cpu")
PRECISIONS = ("same", "bf16", "fp16")
_WEIGHTS = "equal, recent, or numbers >= 0 for the newest, the one before, …; the first above 0"


@dataclass(frozen=True)
class Teaching:
    """How networks of before teach those after them, and how they are kept."""

    alpha: float  # share of the distillation loss
    temperature: float  # of both softmaxes
    weights: str | Sequence[float]  # equal; recent: 1, 1/2, 1/4, … ; numbers, newest first
    most: int | None  # teachers at once, the newest ones; None: all
    length: str | None  # how long each teaches after its growth; None: to the end
    device: str
    precision: str

    def __post_init__(self) -> None:
        require(0 <= self.alpha <= 1, "alpha", self.alpha, "in [0, 1]", "Try 0.5.")
        good = 0 < self.temperature <= 1e3
        require(good, "temperature", self.temperature, "in (0, 1000]", "Try 2.")
        require(_weighing(self.weights), "weights", self.weights, _WEIGHTS, "Try recent.")
        good = self.most is None or self.most >= 1
        require(good, "most", self.most, "a whole number >= 1, or null", "null keeps all.")
        if self.length is not None:
            lasting = Duration.parse(self.length, "length").value > 0
            allowed = "longer than 0, or null for the rest of the run"
            require(lasting, "length", self.length, allowed, "transfer=inherit has no teacher.")
        for setting, known in (("device", DEVICES), ("precision", PRECISIONS)):
            value = getattr(self, setting)
            require(value in known, setting, value, f"one of {', '.join(known)}")

    @property
    def lasts(self) -> Duration | None:
        """How long a teacher teaches."""
        return None if self.length is None else Duration.parse(self.length, "length")

    @property
    def kept(self) -> int | None:
        """Teachers at once; one that no weight is declared for is not kept."""
        declared = [] if isinstance(self.weights, str) else [len(self.weights)]
        return min([*declared, *([self.most] if self.most else [])], default=None)

    def shares(self, teachers: int) -> list[float]:
        """The weight of each teacher, oldest first; they sum to 1."""
        if isinstance(self.weights, str):
            newest = [0.5**i if self.weights == "recent" else 1.0 for i in range(teachers)]
        else:
            newest = [float(weight) for weight in self.weights[:teachers]]
        return [weight / sum(newest) for weight in reversed(newest)]

    def loss(
        self, on_labels: Tensor, student: Tensor, teachers: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What training minimises, and the distillation part of it before alpha, detached.

        `student` are logits (..., classes), `teachers` those of every teacher, oldest first.
        """
        shares = self.shares(len(teachers))
        parts = [
            share * divergence(student, teacher, self.temperature)
            for share, teacher in zip(shares, teachers, strict=True)
        ]
        distilled = self.temperature**2 * sum(parts[1:], start=parts[0])
        return self.alpha * distilled + (1 - self.alpha) * on_labels, distilled.detach()


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over all targets of KL(teacher ‖ student) at a temperature, over the classes that both
    know: classes that have joined since are left out."""
    shared = min(student.shape[-1], teacher.shape[-1])
    log_student_NK, log_teacher_NK = (
        F.log_softmax(_wide(logits)[..., :shared].flatten(0, -2) / temperature, dim=-1)
        for logits in (student, teacher)
    )
    return F.kl_div(log_student_NK, log_teacher_NK, reduction="batchmean", log_target=True)


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.element_size() >= 4 else logits.float()


def _weighing(weights: str | Sequence[float]) -> bool:
    if isinstance(weights, str):
        return weights in ("equal", "recent")
    numbers = [w for w in weights if math.isfinite(w) and w >= 0]
    return bool(numbers) and len(numbers) == len(weights) and weights[0] > 0
