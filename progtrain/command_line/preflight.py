"""What this machine and its devices must have for a run, before anything is written."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from progtrain.errors import ConfigError
from progtrain.hardware.place import among_several, refuse_halves, translate_slurm


def alone() -> None:
    """Raise where somebody has started several of this command: each would do all of it."""
    translate_slurm()
    if os.environ.get("RANK") and os.environ.get("WORLD_SIZE"):
        refuse_halves()
    place = among_several()
    if place is not None:
        raise ConfigError(
            f"WORLD_SIZE={place.world}: torchrun or srun would start {place.world} runs of their"
            " own. Start one process: hardware=ddp hardware.devices=<number> starts the others."
        )


def refuse(config: DictConfig) -> None:
    """Raise where the run cannot be: `EnvironmentProblem` for what the machine lacks,
    `ConfigError` for settings that contradict the number of processes."""
    from progtrain import build

    if config.task != "train":
        return
    divided(int(config.train.batch_size), build.hardware(config).processes())


def divided(batch_size: int, processes: int) -> None:
    """Raise `ConfigError` where processes would have shares of different sizes."""
    if batch_size % processes:
        nearest = max(1, round(batch_size / processes)) * processes
        raise ConfigError(
            f"train.batch_size={batch_size} is the batch of all {processes} processes, so it must"
            f" be divisible by {processes}. Try train.batch_size={nearest}."
        )
