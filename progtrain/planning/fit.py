"""Refuses a stage that does not fit into the memory of the device."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from progtrain.errors import EnvironmentProblem
from progtrain.memory import refused
from progtrain.planning.counted import activations, counted_held
from progtrain.planning.disk import mebibytes
from progtrain.planning.memory import held
from progtrain.planning.rows import Row
from progtrain.run import Run
from progtrain.setup import Setup

_HALVES = ("bf16", "fp16")


def check_room(name: str, run: Run, setup: Setup) -> None:
    """Refuse a stage by what can be counted: a CPU that runs full kills without a word."""
    free = setup.engine.free_memory()
    if free is None or run.probe.x.is_meta:
        return
    try:
        saved = activations(run.model, run.probe.x, run.batch_size // run.accumulate)
        kept = counted_held(run, setup)
    except (NotImplementedError, RuntimeError):  # it cannot run on meta: nothing to count
        return
    saved //= 2 if setup.engine.settings.precision in _HALVES else 1
    need, now = kept.between + saved, held(run, setup.engine.device).still
    if need - now > free:
        words = f"{mebibytes(saved)} of them activations of {run.batch_size:,} samples"
        raise _refusal(name, f"needs at least {mebibytes(need)} of memory, {words}", free, setup)


@contextmanager
def fitting(name: str, rows: Sequence[Row], setup: Setup) -> Generator[None]:
    """Around what a stage really does: memory that runs out is told as what it is."""
    try:
        yield
    except RuntimeError as error:
        if not refused(error):
            raise
        last = f" ({rows[-1].name} took {mebibytes(rows[-1].peak or 0)})" if rows else ""
        told = f"does not fit into the memory{last}"
        raise _refusal(name, told, setup.engine.free_memory(), setup) from error


def _refusal(name: str, told: str, free: int | None, setup: Setup) -> EnvironmentProblem:
    left = f"; {mebibytes(free)} are free" if free is not None else ""
    size = setup.train.batch_size
    less = f"train.batch_size={max(1, size // 2)} train.accumulate={2 * setup.train.accumulate}"
    return EnvironmentProblem(
        f"Stage {name!r} {told}{left}. Try {less}, hardware.precision=bf16, less growth, or"
        " another device."
    )
