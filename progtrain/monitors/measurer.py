"""What monitors have in common that find nothing and add numbers to the row of each evaluation.

Numbers of the last step are kept in a checkpoint (`Run.memory`), for a run that was stopped after
its last step has none of its own when it is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from progtrain.clock import Moment
from progtrain.monitors.finding import Occasion, Watched
from progtrain.run import Event, Run
from progtrain.setup import Setup

_OF_THE_LAST_STEP = ("gradients/", "learning_rate/")
_LAST = "monitor/last"  # in `Run.memory`: numbers of the last step, by name


@runtime_checkable
class Measures(Protocol):
    """A monitor that measures at evaluations."""

    def measure(self, run: Run, setup: Setup) -> Mapping[str, float]:
        """Numbers by name, as they stand in a row of `metrics.jsonl`; may wait for the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """Finds nothing: there is no remedy."""

    name = ""
    remedy = "warn"
    hold = ""
    lookback = 0
    idle = True  # it need not be asked after steps

    def check(self, setup: Setup) -> None:
        """Nothing to refuse."""

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        return False

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        return Watched()


def measured(run: Run, setup: Setup) -> dict[str, float]:
    """What every monitor has to say of an evaluation."""
    return {
        name: value
        for monitor in setup.monitors.values()
        if isinstance(monitor, Measures)
        for name, value in monitor.measure(run, setup).items()
    }


def stepped(run: Run) -> bool:
    """Whether the gradients of the last step are still there."""
    return any(p.grad is not None for p in run.optimizer.parameters.values())


def remember(run: Run, setup: Setup) -> None:
    """Keep the numbers of the last step for a run that is taken up again after it."""
    if not stepped(run):
        return
    last = {n: v for n, v in measured(run, setup).items() if n.startswith(_OF_THE_LAST_STEP)}
    if last:
        run.memory[_LAST] = {"step": run.clock.step, **last}


def remembered(run: Run, prefix: str) -> dict[str, float]:
    """Those of a monitor, where they were kept after this very step."""
    rows = run.memory.get(_LAST)
    last = rows if isinstance(rows, dict) and rows.get("step") == run.clock.step else {}
    return {n: v for n, v in last.items() if n.startswith(prefix) and isinstance(v, float)}
