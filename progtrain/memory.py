"""Memory and disk that a run needs: what is told where there is too little of either."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from progtrain.checkpoint.read import candidates
from progtrain.errors import EnvironmentProblem, GrowthError, GrowthMemoryError
from progtrain.hardware.engine import Engine
from progtrain.report.reporter import PlannedStage
from progtrain.settings import Training

_STORED = 12  # bytes of a parameter in a checkpoint: a weight and two moments in float32
_REFUSALS = ("can't allocate memory", "not enough memory", "out of memory", "OUT_OF_MEMORY")
_MIB = 2**20


def refused(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is about memory that there is not."""
    if error is None:
        return False
    told = isinstance(error, RuntimeError) and any(word in str(error) for word in _REFUSALS)
    return told or isinstance(error, MemoryError) or refused(error.__cause__)


@contextmanager
def memory(directory: Path, engine: Engine, train: Training) -> Generator[None]:
    """Tell of too little memory in one sentence, with the way on; all else passes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not refused(error):
            raise
        kept = candidates(directory / "checkpoints")
        last = f"The last checkpoint is {kept[0]}." if kept else "Nothing had been stored."
        smaller, parts = max(1, train.batch_size // 2), 2 * train.accumulate
        ways = [f"train.batch_size={smaller} train.accumulate={parts} (the same steps)"]
        settings = engine.settings
        ways += ["hardware.precision=bf16"] if settings.precision in ("fp32", "tf32") else []
        if not settings.activation_checkpointing:
            ways.append("hardware.activation_checkpointing=true (blocks compute twice)")
        raise EnvironmentProblem(
            f"Out of memory: {_told(error, engine)}. {last} Try {', '.join(ways)}, smaller data,"
            " or a smaller model."
        ) from error


@contextmanager
def room_to_grow(stage: str, engine: Engine) -> Generator[None]:
    """Around a growth: memory that runs out is told as that, by `GrowthMemoryError`."""
    try:
        yield
    except (MemoryError, RuntimeError, GrowthError) as error:
        if not refused(error):
            raise
        ways = "a smaller growth"
        if engine.shards is not None and engine.home == engine.device:
            ways = "hardware.grow_on=cpu, where all of the network fits, or a smaller growth"
        elif engine.shards is None and engine.device.type == "cuda":
            ways = "hardware=fsdp, which grows in the CPU's memory, or a smaller growth"
        raise GrowthMemoryError(
            f"Stage {stage}: growing takes more memory than there is: {_told(error, engine)}. For a"
            f" moment the old and the new network are there. The network is as it was. Try {ways}."
        ) from error


def _told(error: BaseException, engine: Engine) -> str:
    """What was asked for, and what is free."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = str(error).splitlines()[0].rstrip(". ") if str(error) else "Python could get no more"
    free = engine.free_memory()
    return first if free is None else f"{first}; {free / _MIB:,.0f} MiB are free"


def require_space(directory: Path, plan: Sequence[PlannedStage]) -> None:
    """Raise `EnvironmentProblem` where not one checkpoint of the largest planned network fits."""
    needed = max((_STORED * stage.params + stage.teachers for stage in plan), default=0)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise EnvironmentProblem(
            f"A checkpoint needs about {needed:,} bytes; {directory} has {free:,} bytes free."
            " Free some, or choose another hydra.run.dir."
        )
