"""What the monitors have in common: a remedy that they can have, and what is said where not."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.clock import Duration
from progtrain.errors import require
from progtrain.run import Event, Run
from progtrain.setup import Setup

REMEDIES = ("warn", "adapt", "rollback", "stop")
_TOLD = "monitor/told"  # in `Run.memory`: [monitor, event or null, step] of each finding


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """A monitor of growths; one that looks at no steps and is never out of place."""

    remedy: str = "warn"  # warn, adapt, rollback or stop

    name = ""
    hold = ""

    def __post_init__(self) -> None:
        hint = "A growth that harms asks for no other one." if self.remedy == "grow" else ""
        allowed = "one of " + ", ".join(REMEDIES)
        require(self.remedy in REMEDIES, "remedy", self.remedy, allowed, hint)

    @property
    def lookback(self) -> int:
        return 0

    def check(self, setup: Setup) -> None:
        """Nothing to refuse."""

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        return False


def longer_than_nothing(text: str, setting: str) -> None:
    """Check a length of training that is not 0."""
    length = Duration.parse(text, setting)
    require(length.value > 0, setting, text, "longer than 0", "Try 2%.")


def told(run: Run, monitor: str, event: int | None) -> int | None:
    """The step of the last finding of a monitor about a growth; None where there was none."""
    rows = run.memory.get(_TOLD, [])
    rows = rows if isinstance(rows, list) else []
    steps = [row[2] for row in rows if isinstance(row, list) and row[:2] == [monitor, event]]
    last = steps[-1] if steps else None
    return last if isinstance(last, int) else None


def tell(run: Run, monitor: str, event: int | None) -> None:
    """Remember that a monitor has found something in a growth."""
    rows = run.memory.get(_TOLD, [])
    rows = rows if isinstance(rows, list) else []
    run.memory[_TOLD] = [*rows, [monitor, event, run.clock.step]]


def only_told(monitor: str) -> str:
    """Under which name findings are remembered that no remedy follows."""
    return f"{monitor}, told"


def growth_name(event: Event) -> str:
    return f"growth {event.index + 1} {event.stage}"
