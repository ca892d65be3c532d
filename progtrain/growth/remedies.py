"""What the remedies of monitors have changed for growths to come: factors in `Run.memory`.

They are state of the run, not of a plug-in, so a resume goes on with them.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

from progtrain.contracts import Growth, Operator
from progtrain.growth.policy import Policy
from progtrain.run import Run, Stage

_STRETCH = "remedy/stretch"  # of warmups
_PATIENCE = "remedy/patience"  # of plateau triggers
_INCREMENT = "remedy/increment"  # of what an operator adds
_THRESHOLD = "remedy/threshold"  # below which a plateau trigger calls a rise a plateau
_GROW = "remedy/grow"  # why the next growth is to come now
_STOP = "remedy/stop"  # the monitor that has stopped the run


def stretched(run: Run) -> float:
    """Factor on the length of the next warmup."""
    return _factor(run, _STRETCH)


def patience(run: Run) -> float:
    """Factor on how long a plateau must last."""
    return _factor(run, _PATIENCE)


def increment(run: Run) -> float:
    """Factor on how much the next growth adds."""
    return _factor(run, _INCREMENT)


def threshold(run: Run) -> float:
    """Factor on the relative rise below which an observation counts as a plateau."""
    return _factor(run, _THRESHOLD)


def gentler(run: Run) -> str:
    """Growths to come wait longer, warm up longer and add less; in words."""
    _scale(run, {_STRETCH: 2.0, _PATIENCE: 2.0, _INCREMENT: 0.5})
    return (
        f"growths to come: plateau patience ×{patience(run):g}, warmup ×{stretched(run):g},"
        f" increment ×{increment(run):g}"
    )


def sooner(run: Run) -> str:
    """Growths to come need a shorter plateau; in words."""
    _scale(run, {_PATIENCE: 0.5, _THRESHOLD: 2.0})
    return f"growths to come: plateau patience ×{patience(run):g}, threshold ×{threshold(run):g}"


def smaller(operator: Operator, by: float) -> Operator:
    """The operator, adding `by` times as much where a factor or a count says how much it adds.

    A count stays 1 at least; a size that is given in units stays as it is.
    """
    if by == 1 or not is_dataclass(operator):
        return operator
    settings: dict[str, Any] = {f.name: getattr(operator, f.name) for f in fields(operator)}
    changed: dict[str, Any] = {}
    if "factor" in settings and settings.get("size") is None:
        host = 1 if "spaces" in settings else 0  # of a width that grows the old units are a part
        changed["factor"] = host + (settings["factor"] - host) * by
    if "add" in settings:
        changed["add"] = max(1, round(settings["add"] * by))
    made: Any = replace(operator, **changed)
    return made


def ask_to_grow(run: Run, why: str) -> None:
    """The next growth is to come now."""
    run.memory[_GROW] = why


def answered(run: Run) -> None:
    """A growth has been tried."""
    run.memory.pop(_GROW, None)


def asked(run: Run, growth: Growth) -> Stage | None:
    """The stage that a monitor wants now, where one may grow."""
    why = run.memory.get(_GROW)
    if not isinstance(why, str) or run.living:
        return None
    stage = growth.upcoming(run)
    if not isinstance(stage, Stage):
        return None
    if isinstance(growth, Policy) and growth.embargoed(run, stage.name):
        return None
    return replace(stage, cause=f"a monitor asked for it: {why}")


def ask_to_stop(run: Run, monitor: str) -> None:
    run.memory[_STOP] = monitor


def stopping(run: Run) -> str | None:
    """The monitor that has stopped the run."""
    name = run.memory.get(_STOP)
    return name if isinstance(name, str) else None


def _scale(run: Run, by: dict[str, float]) -> None:
    for name, factor in by.items():
        run.memory[name] = _factor(run, name) * factor


def _factor(run: Run, name: str) -> float:
    value = run.memory.get(name, 1.0)
    return float(value) if isinstance(value, int | float) else 1.0
