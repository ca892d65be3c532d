"""Several reporters as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.report.reporter import PlannedStage, Reporter
    from progtrain.run import Event, Observation, Run


@runtime_checkable
class Closes(Protocol):
    """A reporter that holds something open: a display, a file."""

    def close(self) -> None: ...


class Many:
    """Forwards everything, in the order given; closes those that close, the last one first."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self.reporters = tuple(reporters)

    def __enter__(self) -> Many:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        with ExitStack() as stack:  # one that fails to close keeps no other from closing
            for reporter in self.reporters:
                if isinstance(reporter, Closes):
                    stack.callback(reporter.close)

    def started(self, run: Run, plan: list[PlannedStage]) -> None:
        for reporter in self.reporters:
            reporter.started(run, plan)

    def stepped(self, run: Run, loss: Tensor) -> None:
        for reporter in self.reporters:
            reporter.stepped(run, loss)

    def observed(self, run: Run, observation: Observation) -> None:
        for reporter in self.reporters:
            reporter.observed(run, observation)

    def grew(self, run: Run, event: Event) -> None:
        for reporter in self.reporters:
            reporter.grew(run, event)

    def advanced(self, run: Run, event: Event) -> None:
        for reporter in self.reporters:
            reporter.advanced(run, event)

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        for reporter in self.reporters:
            reporter.found(run, kind, text, event)

    def noted(self, run: Run, text: str) -> None:
        for reporter in self.reporters:
            reporter.noted(run, text)

    def stopped(self, run: Run) -> None:
        for reporter in self.reporters:
            reporter.stopped(run)
