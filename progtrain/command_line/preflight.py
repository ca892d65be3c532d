"""What this machine and its devices must have for a run, before anything is written."""

from __future__ import annotations

from omegaconf import DictConfig

from progtrain.command_line import launched
from progtrain.contracts import Hardware, OptimizerRecipe
from progtrain.errors import ConfigError
from progtrain.hardware.place import among_several


def refuse(config: DictConfig) -> None:
    """Raise where the run cannot be: `EnvironmentProblem` for what the machine lacks,
    `ConfigError` for settings that contradict the number of processes."""
    from progtrain import build

    if config.task != "train":
        return
    launched.show()
    hardware, optimizer = build.part(config, "hardware"), build.part(config, "optimizer")
    processes(hardware, optimizer, int(config.train.batch_size))


def processes(hardware: Hardware, optimizer: OptimizerRecipe, batch_size: int) -> int:
    """How many a run is, on all machines; raises where they cannot share its batches or step by
    its optimizer."""
    count, place = hardware.processes(), among_several()
    if place is not None and count != place.world:
        raise ConfigError(
            f"WORLD_SIZE={place.world}: torchrun or srun has started {place.world} processes, and"
            " this kind of hardware is one. Try hardware=ddp or hardware=fsdp, or start it once."
        )
    if batch_size % count:
        below = batch_size // count * count
        near = [str(size) for size in (below, below + count) if size]
        raise ConfigError(
            f"train.batch_size={batch_size} is the batch of all {count} processes, so it must"
            f" be divisible by {count}. Try {' or '.join(near)}."
        )
    hardware.suits(optimizer)
    return count
