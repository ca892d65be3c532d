"""What a run tells to whoever shows or stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.run import Event, Observation, Run


@dataclass(frozen=True)
class PlannedStage:
    """One row of the plan: the network at a stage."""

    name: str
    params: int
    flops: float  # of one training sample, forward and backward
    what: str  # what this stage adds, in words
    teachers: int = 0  # bytes of the networks that teach it, at most

    @property
    def memory(self) -> int:
        """Bytes of weights, gradients and two moments in float32, and of teachers; activations come
        on top."""
        return 16 * self.params + self.teachers


class Reporter(Protocol):
    """Shows or stores what happens (screen, files); reads only."""

    def started(self, run: Run, plan: list[PlannedStage]) -> None: ...

    def stepped(self, run: Run, loss: Tensor) -> None: ...

    def observed(self, run: Run, observation: Observation) -> None: ...

    def grew(self, run: Run, event: Event) -> None: ...

    def advanced(self, run: Run, event: Event) -> None:
        """An event entered its next phase."""
        ...

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        """Something is known of a growth now: its `recovery`, its `contribution`, a `finding`."""
        ...

    def noted(self, run: Run, text: str) -> None:
        """Something worth a line: growth ended, a checkpoint was written."""
        ...

    def stopped(self, run: Run) -> None: ...
