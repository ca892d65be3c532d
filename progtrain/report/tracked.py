"""A run told to a tracker, which may fail: the run goes on without it.

What has been told is kept beside the run (`loggers/`), so that a run that goes on tells nothing
twice; its repeated steps have the same bits as those that were told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from progtrain.loggers.logger import Book, Result, remember, remembered
from progtrain.report import units, words
from progtrain.run import Phase, StopReason

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.contracts import Logger
    from progtrain.loggers.logger import Tracker
    from progtrain.report.reporter import PlannedStage
    from progtrain.run import Event, Observation, Run

Warn = Callable[["Run", str], None]


class Tracked:
    """A reporter for one logger; opened when the run starts, closed whatever ends it."""

    def __init__(self, name: str, logger: Logger, book: Book, warn: Warn) -> None:
        self.name, self.logger, self.book, self.warn = name, logger, book, warn
        self._tracker: Tracker | None = None
        self._result = Result()
        self._past: Mapping[str, int] = {}  # told before this process: row or growth -> step
        self._told: dict[str, int] = {}
        self._run: Run | None = None

    def started(self, run: Run, plan: list[PlannedStage]) -> None:
        self._run, self._result = run, Result(step=run.clock.step)
        self._guarded(run, self._open)
        if not run.clock.step:
            self._tell(run, "start", 0, {"growth/params": run.params})

    def _open(self) -> None:
        self._tracker = self.logger.open(self.book)
        known = remembered(self.book, self._memory)
        past = {key: step for key, step in known.items() if isinstance(step, int)}
        if self._tracker is not None and self._tracker.forgets:
            past = {key: min(step, self.book.step) for key, step in past.items()}
        self._past, self._told = past, dict(past)

    def stepped(self, run: Run, loss: Tensor) -> None:
        """Nothing: a row a step would cost a wait for the device a step."""

    def observed(self, run: Run, observation: Observation) -> None:
        now = observation.moment
        values = dict(observation.metrics) | {
            "epoch": observation.epoch,
            "samples": now.samples,
            "flops": now.flops,
            "seconds": now.seconds,
            "params": run.params,
            "flops_per_sample": run.flops,
            "lr": max((float(group["lr"]) for group in run.optimizer.groups()), default=0.0),
        }
        values |= {f"view/{name}": getattr(run.view, name) for name in sorted(run.curriculum.sets)}
        self._tell(run, "row", now.step, values)

    def grew(self, run: Run, event: Event) -> None:
        values = {
            "growth/index": event.index,
            "growth/params": event.params_after,
            "growth/params_before": event.params_before,
            "growth/preservation_error": event.preservation_error,
            "growth/metric_before": event.metric_before,
            "growth/metric_after": event.metric_after,
            "growth/flops": event.cost,
        }
        sentence = words.growth(run, event).sentence()
        key = f"growth {event.index}"
        self._tell(run, key, event.moment.step, values, {"growth": sentence})

    def advanced(self, run: Run, event: Event) -> None:
        if event.phase is Phase.ROLLED_BACK:
            values = {"growth/params": run.params}
            texts = {"growth": words.advanced(event)}
            self._tell(run, f"undone {event.index}", event.since.step, values, texts)

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        key = f"{kind} {event.index if event else ''}"
        self._tell(run, key, run.clock.step, {}, {kind: text})

    def noted(self, run: Run, text: str) -> None:
        """Nothing: notes are for who reads along."""

    def stopped(self, run: Run) -> None:
        stop = run.stopped
        figures = {
            "final/metric": run.last_metric,
            "final/best_metric": run.best_metric,
            "final/growths": len(run.grown),
            "final/params": run.params,
            "final/flops": run.clock.now.flops,
            "final/seconds": run.clock.now.seconds,
        }
        figures |= dict(run.test or {})
        status = "interrupted" if stop is StopReason.INTERRUPTED else "done"
        texts = {"stop": stop.name if stop else "", "metric_name": run.metric}
        self._result = Result(status, run.clock.step, _numbers(figures), texts)

    def close(self) -> None:
        """Close the tracker; a run that never came to `stopped` has failed."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None and self._run is not None:
            self._guarded(self._run, lambda: tracker.finish(self._result))

    def _tell(
        self,
        run: Run,
        key: str,
        step: int,
        values: Mapping[str, float | None],
        texts: Mapping[str, str] | None = None,
    ) -> None:
        tracker, past = self._tracker, self._past.get(key)
        if tracker is None or (past is not None and step <= past):
            return

        def tell() -> None:
            tracker.log(step, _numbers(values), texts or {})
            self._told[key] = step
            remember(self.book, self._memory, self._told)

        self._guarded(run, tell)

    @property
    def _memory(self) -> str:
        return f"{self.name}.told"

    def _guarded(self, run: Run, action: Callable[[], None]) -> None:
        """Do it; where it fails, say so once and never try again."""
        try:
            action()
        except Exception as error:  # whatever a library of somebody else's or a network raises
            self._tracker = None
            told = units.one_line(str(error)) or type(error).__name__
            self.warn(run, f"logger {self.name} has failed and is told nothing more: {told}")


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Those that are finite; not every tracker takes the others."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
