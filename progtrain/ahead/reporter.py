"""Follows a run, and has compiled beside it what its next growth will need.

What that is, is asked where the network is plain: at the start, after a growth, after one is
undone. The process begins after the first step that has compiled nothing, so that a stage's own
graphs come first; a growth that is there before the process is done ends it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor

from progtrain.account import AHEAD
from progtrain.ahead.background import Background, Result, pack
from progtrain.ahead.order import order
from progtrain.hardware.place import here
from progtrain.report.many import Many
from progtrain.report.reporter import PlannedStage
from progtrain.run import Event, Observation, Phase, Run
from progtrain.setup import Setup


@contextmanager
def compiling_ahead(run: Run, setup: Setup) -> Generator[Setup]:
    """The setup of a run that compiles ahead, where that is asked for; of the processes on one
    machine the first does it for all. `run` is without controls."""
    place = here()
    if not setup.engine.settings.compile_ahead or (place is not None and place.local):
        yield setup
        return
    ahead = Ahead(setup)
    ahead.ask(run)
    try:
        yield replace(setup, reporter=Many([ahead, setup.reporter]))  # before results are written
    finally:
        ahead.end()


class Ahead:
    """A reporter that starts processes and ends them; it never ends the run."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._wanted: bytes | None = None  # what the next process shall do
        self._graphs = -1  # of the run, when last seen
        self._process: Background | None = None

    @property
    def busy(self) -> bool:
        """Whether a process is at work, or will be after the next step."""
        return self._wanted is not None or self._process is not None

    def grew(self, run: Run, event: Event) -> None:
        self.ask(run)

    def advanced(self, run: Run, event: Event) -> None:
        if event.phase is Phase.ROLLED_BACK:
            self.ask(run)

    def stepped(self, run: Run, loss: Tensor) -> None:
        graphs, self._graphs = self._graphs, self._setup.engine.graphs
        if self._wanted is not None and graphs == self._graphs:
            wanted, self._wanted = self._wanted, None
            self._attempt(run, wanted)
        elif self._process is not None and (result := self._process.result()) is not None:
            self._process = None
            self._tell(run, result)

    def stopped(self, run: Run) -> None:
        self._close(run, "until the run ended")

    def started(self, run: Run, plan: list[PlannedStage]) -> None: ...
    def observed(self, run: Run, observation: Observation) -> None: ...
    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None: ...
    def noted(self, run: Run, text: str) -> None: ...

    def end(self) -> None:
        """No process lives on."""
        if self._process is not None:
            self._process.end()
        self._process = self._wanted = None

    def ask(self, run: Run) -> None:
        """Find out what comes next."""
        self._close(run, "until the network changed")
        try:
            found = order(run, self._setup)
            self._wanted = pack(found) if found.looks else None
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            self._note(run, f"nothing is compiled ahead: what grows next is not known ({why})")

    def _attempt(self, run: Run, wanted: bytes) -> None:
        try:
            self._process = Background(wanted)
        except Exception as error:  # no memory, no more processes
            self._note(run, f"nothing is compiled ahead: no process could be started ({error})")

    def _close(self, run: Run, why: str) -> None:
        """End a process that is still at work."""
        process, self._process, self._wanted = self._process, None, None
        if process is not None:
            self._tell(run, process.result() or process.end(why))

    def _tell(self, run: Run, result: Result) -> None:
        run.clock.charge(AHEAD, seconds=result.seconds)
        if not (result.graphs or result.failed):
            return  # it was ended before it had begun
        rest = f", {result.ended}" if result.ended else ""
        graphs = "1 graph" if result.graphs == 1 else f"{result.graphs} graphs"
        self._note(run, f"compiled ahead: {graphs} in {result.seconds:.1f} s{rest}")

    def _note(self, run: Run, text: str) -> None:
        self._setup.reporter.noted(run, text)
