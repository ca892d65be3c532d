"""Where the time goes: torch's profiler over a few steps, as a table and a trace.

The window opens after `wait` steps, or at the first growth after them, and lasts `active` steps.
The moves of the machine (step, grow, observe) are marked in the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.profiler import ProfilerActivity, record_function, schedule
from torch.profiler import profile as profiler

from progtrain.debug.none import NoDebug
from progtrain.errors import require
from progtrain.machine import Machine, State
from progtrain.run import StopReason
from progtrain.settings import whole

if TYPE_CHECKING:
    from progtrain.debug.around import Around

TRACE = "trace.json"
_NAME = 44  # columns of an operator's name


@dataclass(frozen=True)
class Profile(NoDebug):
    """Profiles `active` steps of a run that is otherwise as it is."""

    wait: int = 5  # steps before the window
    warmup: int = 2  # steps that the profiler takes to warm up, not recorded
    active: int = 5  # steps recorded
    around_growth: bool = False  # wait for the next growth, and record that too
    rows: int = 15  # operators in the table

    def __post_init__(self) -> None:
        for name, least in {"wait": 0, "warmup": 0, "active": 1, "rows": 1}.items():
            value = getattr(self, name)
            require(whole(value) and value >= least, name, value, f"a whole number >= {least}")
            object.__setattr__(self, name, int(value))

    def drive(self, machine: Machine, around: Around) -> StopReason:
        window = Window(self, machine)
        moves = machine.moves()
        coming = next(moves, State.STOP)
        while coming is not State.STOP:
            window.before(coming)
            with record_function(f"progtrain.{coming.name.lower()}"):
                following = next(moves, State.STOP)
            window.after(coming)
            coming = following
        reason = machine.stop()
        around.lines += window.told(around)
        return reason


class Window:
    """The part of a run that is recorded."""

    def __init__(self, settings: Profile, machine: Machine) -> None:
        self.settings, self.machine = settings, machine
        self.begun = machine.run.clock.step
        self.profiler: Any = None
        self.open = False
        self.since = self.until = 0
        self.growths: list[str] = []

    def before(self, coming: State) -> None:
        """Open the window where it is time."""
        waited = self.machine.run.clock.step - self.begun >= self.settings.wait
        if self.profiler is not None or not waited:
            return
        if self.settings.around_growth:
            if coming is State.GROW:
                self._start(warmup=1, active=self.settings.active + 1).step()
        elif coming is State.STEP:
            self._start(self.settings.warmup, self.settings.active)

    def _start(self, warmup: int, active: int) -> Any:
        on_gpu = self.machine.setup.engine.device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
        plan = schedule(wait=0, warmup=warmup, active=active, repeat=1)
        self.profiler = profiler(activities=activities, schedule=plan, profile_memory=True)
        self.profiler.start()
        self.open = True
        skipped = 0 if self.settings.around_growth else self.settings.warmup
        self.since = self.machine.run.clock.step + skipped
        self.until = self.since + self.settings.active
        return self.profiler

    def after(self, done: State) -> None:
        """Count what has been done; close the window at its end."""
        run = self.machine.run
        if not self.open:
            return
        if done is State.GROW and run.events and run.clock.step >= self.since:
            self.growths.append(run.events[-1].stage)
        if done is State.STEP:
            self.profiler.step()
        if run.clock.step >= self.until:
            self._close()

    def _close(self) -> None:
        self.until = min(self.until, self.machine.run.clock.step)
        self.profiler.stop()
        self.open = False

    def told(self, around: Around) -> list[str]:
        """The table, and where the trace is; why there is none. Of several processes one stores."""
        if self.open:
            self._close()
        if self.profiler is None or self.until <= self.since:
            what = "no growth came" if self.settings.around_growth else "the run was shorter"
            return [
                f"profile: nothing was recorded, as {what} after debug.wait={self.settings.wait}."
            ]
        trace = around.directory / TRACE
        if around.first:
            self.profiler.export_chrome_trace(str(trace))
        grown = f", growth of {', '.join(self.growths)}" if self.growths else ""
        on_gpu = self.machine.setup.engine.device.type == "cuda"
        return [
            f"profile: steps {self.since + 1:,} to {self.until:,}{grown}",
            *table(self.profiler.key_averages(), self.settings.rows, on_gpu),
            f"trace: {trace} (open it in chrome://tracing or ui.perfetto.dev)",
        ]


def table(averages: Sequence[Any], rows: int, on_gpu: bool) -> list[str]:
    """The operators that take most time by themselves, as lines of text; times in ms."""
    marks = ("progtrain.", "ProfilerStep", "Optimizer.")

    def own(each: Any) -> float:
        return each.self_device_time_total if on_gpu else each.self_cpu_time_total

    found = [each for each in averages if not each.key.startswith(marks)]
    total = sum(map(own, found)) or 1.0
    head = f"{'operator':<{_NAME}} {'calls':>7} {'self CPU':>10}"
    head += f" {'self GPU':>10}" * on_gpu + f" {'share':>6} {'memory':>11}"
    lines = [head]
    for each in sorted(found, key=own, reverse=True)[:rows]:
        memory = each.self_device_memory_usage if on_gpu else each.self_cpu_memory_usage
        line = (
            f"{_short(each.key):<{_NAME}} {each.count:>7,} {each.self_cpu_time_total / 1e3:>10.3f}"
        )
        line += f" {each.self_device_time_total / 1e3:>10.3f}" if on_gpu else ""
        lines.append(f"{line} {own(each) / total:>6.1%} {_size(memory):>11}")
    return [*lines, *_moves(averages)]


def _moves(averages: Sequence[Any]) -> list[str]:
    """What the machine did, with the time of each kind of move."""
    moves = [each for each in averages if each.key.startswith("progtrain.") and each.cpu_time_total]
    told = [
        f"{each.key.removeprefix('progtrain.')} {each.count}× {each.cpu_time_total / 1e3:.3g} ms"
        for each in sorted(moves, key=lambda each: each.cpu_time_total, reverse=True)
    ]
    return ["moves: " + ", ".join(told)] if told else []


def _size(number: float) -> str:
    """Bytes in the unit that fits; negative where more was freed than taken."""
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} GiB"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
