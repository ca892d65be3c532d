"""Memory and disk that a run needs: what is told where there is too little of either."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from progtrain.checkpoint.read import candidates
from progtrain.errors import EnvironmentProblem
from progtrain.report.reporter import PlannedStage

_STORED = 12  # bytes of a parameter in a checkpoint: a weight and two moments in float32
_REFUSALS = ("can't allocate memory", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY")


@contextmanager
def memory(directory: Path, batch_size: int) -> Generator[None]:
    """Tell of too little memory in one sentence, with the way on; all else passes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = str(error).splitlines()[0] if str(error) else "Python could get no more"
        if not isinstance(error, MemoryError) and not any(r in str(error) for r in _REFUSALS):
            raise
        kept = candidates(directory / "checkpoints")
        last = f"The last checkpoint is {kept[0]}." if kept else "Nothing had been stored."
        smaller = max(1, batch_size // 2)
        raise EnvironmentProblem(
            f"Out of memory: {told}. {last} Try train.batch_size={smaller} train.accumulate=2"
            " (the same steps), smaller data, or a smaller model."
        ) from error


def require_space(directory: Path, plan: Sequence[PlannedStage]) -> None:
    """Raise `EnvironmentProblem` where not one checkpoint of the largest planned network fits."""
    needed = max((_STORED * stage.params + stage.teachers for stage in plan), default=0)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise EnvironmentProblem(
            f"A checkpoint needs about {needed:,} bytes; {directory} has {free:,} bytes free."
            " Free some, or choose another hydra.run.dir."
        )
