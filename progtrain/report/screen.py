"""A run on a terminal: header, plan, one moving line, growths as they happen, a closing panel.

Nothing runs in a thread: the display is drawn inside the calls below, so a loss on a GPU is read
by the training thread alone, at most every `REFRESH_SECONDS`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from progtrain.report import words
from progtrain.report.bar import Bar
from progtrain.report.lines import Lines
from progtrain.report.words import Heading

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.report.reporter import PlannedStage
    from progtrain.run import Event, Observation, Run

REFRESH_SECONDS = 0.5  # reading the loss waits for the device


def reporter(
    directory: Path,
    choices: Mapping[str, str],
    facts: Sequence[str],
    resume_command: str,
) -> Screen | Lines:
    """`Screen` where standard output is a terminal that can draw, else `Lines`."""
    heading = Heading(directory, choices, facts, resume_command)
    can_draw = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    if sys.stdout.isatty() and can_draw and os.environ.get("TERM", "") not in ("dumb", "unknown"):
        return Screen(heading)
    return Lines(heading)


class Screen:
    """Reports to a terminal; use it in a `with`, or call `close`, so that the cursor comes back."""

    def __init__(
        self,
        heading: Heading,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.heading = heading
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self.bar = Bar()
        self.live = Live(self.bar, console=self.console, auto_refresh=False, transient=True)
        self._now = now
        self._refreshed = -REFRESH_SECONDS
        self._run: Run | None = None  # while it is under way
        self._best: float | None = None
        self._tenth = 0  # of the run, at the last evaluation printed

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing; a run that never came to `stopped` is told how it continues."""
        self.live.stop()
        run, self._run = self._run, None
        if run is not None:
            self._say(words.unfinished(run), "bold")
            self._exactly(self.heading.resume_command)

    def started(self, run: Run, plan: list[PlannedStage]) -> None:
        self._run, self._best = run, run.best_metric
        self._tenth = int(run.clock.fraction * 10)
        self._header()
        if plan:
            self.console.print(_plan_table(plan))
        if run.clock.step:
            self._say(f"Resumed at step {run.clock.step:,}.", "bold")
        self.bar.begin(run, len(plan))
        self.live.start()

    def stepped(self, run: Run, loss: Tensor) -> None:
        if self._now() - self._refreshed < REFRESH_SECONDS:
            return
        self._refresh(run, float(loss.item()))
        # after drawing, and here alone: other refreshes must not put off reading the loss
        self._refreshed = self._now()

    def observed(self, run: Run, observation: Observation) -> None:
        value = observation.metrics.get(run.metric)
        self.bar.metric = value
        is_best = words.is_better(run, value, self._best)
        self._best = value if is_best else self._best
        tenth = int(run.clock.fraction * 10)
        if is_best or tenth > self._tenth:
            self._tenth = tenth
            told = words.evaluation(run, observation, is_best, self.console.width)
            self._say(told, "green" if is_best else "")
        self._refresh(run)

    def grew(self, run: Run, event: Event) -> None:
        told = words.growth(run, event)
        block = Text()
        block.append(f"{told.what}\n", style="bold")
        block.append(f"{told.cause}\n")
        block.append(f"{told.size}\n{told.cost}\n")
        block.append(f"{told.kept}\n", style="" if event.promised else "magenta")
        block.append(f"{told.inherited}\n" if told.inherited else "")
        block.append(f"{told.metric}, {told.rate}, {told.took}")
        self._say(f"▲ {told.head}", "bold yellow")
        self.console.print(Padding(block, (0, 0, 0, 2)))
        self._refresh(run)

    def advanced(self, run: Run, event: Event) -> None:
        self._say(words.advanced(event), "dim")
        self._refresh(run)

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        self._say(f"{kind}: {text}", "bold magenta" if kind == "finding" else "dim")

    def noted(self, run: Run, text: str) -> None:
        self._say(text, "dim")

    def stopped(self, run: Run) -> None:
        self._run = None
        self.live.stop()
        table = _pairs()
        for label, sentence in words.summary(run):
            table.add_row(label, sentence)
        self.console.print(Panel(table, title="progtrain", border_style="green"))
        # outside the panel and unbroken, so that both can be copied
        for label, text in self.heading.closing:
            self._exactly(f"{label}: {text}")

    def _header(self) -> None:
        chosen = [
            Text.assemble((f"{group}=", "dim"), (option, "bold"))
            for group, option in self.heading.chosen.items()
        ]
        self.console.rule("progtrain")
        self.console.print(Columns(chosen, padding=(0, 3)))
        plain, labelled = self.heading.labelled()
        for fact in plain:
            self._say(fact, "dim")
        table = _pairs()
        for label, fact in labelled:
            table.add_row(label, Text(fact))
        self.console.print(table)
        self._exactly(f"outputs  {self.heading.directory}")

    def _refresh(self, run: Run, loss: float | None = None) -> None:
        self.bar.update(run, loss)
        self.live.refresh()

    def _say(self, text: str, style: str) -> None:
        self.console.print(Text(text, style=style))

    def _exactly(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)


def _plan_table(plan: Sequence[PlannedStage]) -> Table:
    title = "plan (FLOPs: one sample, forward and backward; ×: of the first stage)"
    table = Table(title=title, title_justify="left", title_style="dim", box=None, pad_edge=False)
    table.add_column("stage", style="bold", overflow="fold")
    table.add_column("adds", overflow="fold")
    table.add_column("parameters", justify="right", overflow="fold")
    table.add_column("FLOPs", justify="right", overflow="fold")
    for row in words.planned(plan):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table
