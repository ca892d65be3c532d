"""What the remedies of monitors have changed for growths to come: factors in `Run.memory`.

They are state of the run, not of a plug-in, so a resume goes on with them.
"""

from __future__ import annotations

from progtrain.run import Run

_STRETCH = "remedy/stretch"  # of warmups
_PATIENCE = "remedy/patience"  # of plateau triggers
_INCREMENT = "remedy/increment"  # of what an operator adds


def stretched(run: Run) -> float:
    """Factor on the length of the next warmup."""
    return _factor(run, _STRETCH)


def patience(run: Run) -> float:
    """Factor on how long a plateau must last."""
    return _factor(run, _PATIENCE)


def increment(run: Run) -> float:
    """Factor on how much the next growth adds."""
    return _factor(run, _INCREMENT)


def scale(run: Run, stretch: float = 1.0, patience: float = 1.0, increment: float = 1.0) -> None:
    """Multiply the factors of growths to come."""
    for name, by in ((_STRETCH, stretch), (_PATIENCE, patience), (_INCREMENT, increment)):
        if by != 1:
            run.memory[name] = _factor(run, name) * by


def _factor(run: Run, name: str) -> float:
    value = run.memory.get(name, 1.0)
    return float(value) if isinstance(value, int | float) else 1.0
