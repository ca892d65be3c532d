"""A run in plain lines, for files and pipes: no colours, no carriage returns, one line an event."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from progtrain.report import units, words
from progtrain.report.bar import Pace

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.report.reporter import PlannedStage
    from progtrain.report.words import Heading
    from progtrain.run import Event, Observation, Run


class Lines:
    """Reports to a stream that is no terminal."""

    def __init__(self, heading: Heading, stream: TextIO | None = None) -> None:
        self.heading = heading
        self.stream = stream or sys.stdout
        self._encoding = self.stream.encoding or "utf-8"
        self._run: Run | None = None  # while it is under way
        self._best: float | None = None
        self._tenth = 0  # of the run, at the last progress line
        self._num_planned = 0
        self._pace = Pace()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """A run that never came to `stopped` is told how it continues."""
        run, self._run = self._run, None
        if run is not None:
            self._say(f"{words.unfinished(run)} {self.heading.resume_command}")

    def started(self, run: Run, plan: list[PlannedStage]) -> None:
        self._run, self._best = run, run.best_metric
        self._tenth = int(run.clock.fraction * 10)
        self._num_planned = len(plan)
        chosen = [f"{group}={option}" for group, option in self.heading.choices.items()]
        self._say(" ".join(["progtrain", *chosen]))
        for fact in self.heading.facts:
            self._say(fact)
        self._say(f"outputs {self.heading.directory}")
        for name, what, params, flops in words.planned(plan):
            self._say(f"plan {name}: {what}; {params} params; {flops} per sample")
        if run.clock.step:
            self._say(f"Resumed at step {run.clock.step:,}.")
        self._pace.look(run)

    def stepped(self, run: Run, loss: Tensor) -> None:
        tenth = int(run.clock.fraction * 10)
        if tenth <= self._tenth:
            return
        self._tenth = tenth
        self._pace.look(run)
        self._say(
            f"{run.clock.fraction:.0%} {words.stage(run, self._num_planned)} {words.life(run)},"
            f" epoch {run.clock.epoch:.1f}, step {run.clock.step:,},"
            f" loss {units.metric(float(loss.item()))}, {self._pace.steps:.3g} it/s,"
            f" {units.seconds(run.clock.now.seconds)}, ETA {self._pace.left(run.clock.fraction)}"
        )

    def observed(self, run: Run, observation: Observation) -> None:
        value = observation.metrics.get(run.metric)
        is_best = words.is_better(run, value, self._best)
        self._best = value if is_best else self._best
        self._say(words.evaluation(run, observation, is_best))

    def grew(self, run: Run, event: Event) -> None:
        self._say(words.growth(run, event).sentence())

    def advanced(self, run: Run, event: Event) -> None:
        self._say(words.advanced(event))

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        self._say(f"{kind}: {text}")

    def noted(self, run: Run, text: str) -> None:
        self._say(text)

    def stopped(self, run: Run) -> None:
        self._run = None
        for label, sentence in words.summary(run):
            self._say(f"{label}: {sentence}")
        for label, text in self.heading.closing:
            self._say(f"{label}: {text}")

    def _say(self, text: str) -> None:
        line = units.encodable(units.one_line(text), self._encoding)
        try:
            print(line, file=self.stream, flush=True)
        except BrokenPipeError:  # `progtrain | head`: nobody reads on, but the run is worth its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
