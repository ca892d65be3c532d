"""The line that moves: where the run is, how fast, and its life so far as a coloured band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.text import Text

from progtrain.clock import Unit
from progtrain.report import units, words
from progtrain.run import Phase

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from progtrain.run import Run

# colour and, for terminals without any, shade
LOOKS = {
    Phase.ISOLATE: ("magenta", "░"),
    Phase.WARMUP: ("yellow", "▒"),
    Phase.HOLD: ("yellow", "░"),
    Phase.SETTLE: ("blue", "▒"),
    Phase.CONSOLIDATE: ("cyan", "▓"),
    Phase.INTEGRATED: ("green", "█"),
}
MEMORY_SECONDS = 10.0  # a growth changes the speed, so speed is that of the last seconds
ONE_LINE_WIDTH = 130
BAND_WIDTH = 12  # columns the band keeps when figures compete for the line


@dataclass
class Pace:
    """Steps and share of the run per second, by an average that forgets."""

    steps: float = 0.0
    share: float = 0.0
    _last: tuple[int, float, float] | None = None

    def look(self, run: Run) -> None:
        here = (run.clock.step, run.clock.fraction, run.clock.now.seconds)
        before, self._last = self._last or here, here
        passed = here[2] - before[2]
        if passed <= 0:
            self._last = before
            return
        known = self.share > 0
        weight = 1 - math.exp(-passed / MEMORY_SECONDS) if known else 1.0
        self.steps += weight * ((here[0] - before[0]) / passed - self.steps)
        self.share += weight * ((here[1] - before[1]) / passed - self.share)

    def left(self, fraction: float) -> str:
        """Time to the planned end in words."""
        return units.seconds((1 - fraction) / self.share) if self.share > 0 else "?"


@dataclass
class Bar:
    """A snapshot of the run that draws itself in one line, or two where columns are few."""

    num_planned: int = 0
    metric: float | None = None  # primary metric at the last evaluation
    pace: Pace = field(default_factory=Pace)
    phase: Phase = Phase.INTEGRATED
    fraction: float = 0.0
    _label: str = ""
    _figures: list[str] = field(default_factory=lambda: list[str]())
    _times: list[str] = field(default_factory=lambda: list[str]())
    _loss: float | None = None
    _spans: list[tuple[float, Phase]] = field(default_factory=lambda: [(0.0, Phase.INTEGRATED)])
    _growths: list[float] = field(default_factory=lambda: list[float]())

    def begin(self, run: Run, num_planned: int) -> None:
        """Take what a resumed run knows of its past."""
        self.num_planned, self.metric = num_planned, run.last_metric
        for event in run.living:
            self._spans.append((run.clock.count(event.since, Unit.FRACTION), event.phase))
        self.update(run)

    def update(self, run: Run, loss: float | None = None) -> None:
        """Take a snapshot; `loss` is None where it was not read."""
        self.pace.look(run)
        self._loss = self._loss if loss is None else loss
        self.fraction, self.phase = run.clock.fraction, words.phase_now(run)
        if self._spans[-1][1] is not self.phase:
            self._spans.append((self.fraction, self.phase))
        self._growths = [run.clock.count(e.moment, Unit.FRACTION) for e in run.events]
        self._label = f" {words.stage(run, self.num_planned)} · {words.life(run)} "
        now = run.clock.now
        self._figures = [  # in order of importance: the last goes first where columns are few
            f"loss {units.metric(self._loss)}",
            f"{run.metric} {units.metric(self.metric)}",
            f"step {now.step:,}",
            f"epoch {run.clock.epoch:.1f}",
            *words.view(run),
            f"{self.pace.steps:.3g} it/s"
            if self.pace.steps < 1000
            else f"{self.pace.steps:,.0f} it/s",
        ]
        left = self.pace.left(self.fraction)
        self._times = [f"{self.fraction:.0%}", units.seconds(now.seconds), f"ETA {left}"]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # one column stays free: a full line makes some terminals wrap
        width = options.max_width - 1
        label = Text(self._label, style=f"black on {LOOKS[self.phase][0]}", no_wrap=True)
        if width + 1 >= ONE_LINE_WIDTH:
            figures = fit([*self._times, *self._figures], width - label.cell_len - BAND_WIDTH - 2)
            yield _line(label, self.band(width - label.cell_len - len(figures) - 2), figures, width)
            return
        times = fit(self._times, width - label.cell_len - 1)
        yield _line(label, self.band(width - label.cell_len - len(times) - 2), times, width)
        yield _line(Text(""), Text(""), fit(self._figures, width), width)

    def band(self, width: int) -> Text:
        """The run from start to planned end: each cell in the look of its phase, `▲` at growths."""
        text = Text(no_wrap=True)
        grown = {min(int(at * width), width - 1) for at in self._growths}
        for cell in range(max(0, width)):
            centre = (cell + 0.5) / width
            phase = next(phase for start, phase in reversed(self._spans) if start <= centre)
            colour, shade = LOOKS[phase]
            if cell in grown:
                text.append("▲", style="bold")  # seen on light and on dark
            elif centre <= self.fraction:
                text.append(shade, style=colour)
            else:
                text.append("─", style="dim")
        return text


def fit(parts: Sequence[str], width: int) -> str:
    """As many of the first parts as the width holds."""
    line = ""
    for part in parts:
        longer = f"{line} · {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line


def _line(label: Text, band: Text, figures: str, width: int) -> Text:
    parts = [part for part in (label, band, Text(figures)) if part.cell_len]
    line = Text(" ", no_wrap=True, end="\n").join(parts)
    line.truncate(width)
    return line
