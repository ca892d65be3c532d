"""The network before the growth, frozen, teaches the grown one.

What: a student that has just grown is held near the function it had, while it learns the labels.
Equation: loss = alpha · T² · KL(teacher ‖ student at temperature T) + (1 − alpha) · loss on labels.
When it fails: alpha near 1 holds the student to what the smaller network could do.
Reference: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.transfer.teaching import Teaching


@dataclass(frozen=True)
class Distill:
    """One teacher: the network as it was before the newest growth."""

    alpha: float = 0.5  # share of the distillation loss
    temperature: float = 2.0
    length: str | None = "20%"  # how long after a growth; None: to the next one, or the end
    device: str = "same"  # where the teacher computes: same as the student, or cpu
    precision: str = "same"  # of its weights: same, bf16, fp16
    preserves = False

    def __post_init__(self) -> None:
        assert self.teaching  # which refuses what is no value

    @property
    def teaching(self) -> Teaching:
        return Teaching(
            self.alpha, self.temperature, "equal", 1, self.length, self.device, self.precision
        )
