"""Which GPUs there are, and which of them a run takes."""

from __future__ import annotations

import os

import torch

from progtrain.errors import EnvironmentProblem

KINDS = ("auto", "cpu", "gpu")


def gpus() -> int:
    """How many CUDA devices are visible."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def require_gpu(setting: str) -> None:
    """Raise `EnvironmentProblem` where `setting` asks for a GPU and none is visible."""
    if gpus() == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise EnvironmentProblem(
            f"{setting}, but no CUDA device is visible (CUDA_VISIBLE_DEVICES {visible})."
            " Use hardware=cpu or hardware=auto."
        )


def gpu(index: int | None) -> torch.device:
    """The GPU of that number, from now on the current one; None: the one that is current."""
    if index is None:
        return torch.device("cuda")
    if index >= gpus():
        raise EnvironmentProblem(
            f"hardware.index={index}, but the visible devices are {listed()}."
            " Give one of these numbers, or null for the first."
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def listed() -> str:
    """Every visible GPU by number and name."""
    return ", ".join(f"{number} ({torch.cuda.get_device_name(number)})" for number in range(gpus()))


def take_turn(number: int) -> None:
    """Make the GPU current that falls to job `number` where each job takes the next one."""
    if gpus() > 0:
        torch.cuda.set_device(number % gpus())


def block(turn: int, count: int) -> str | None:
    """CUDA_VISIBLE_DEVICES of job `turn` where each job takes the next `count` GPUs, as far as they
    are enough for several; None where there is no GPU."""
    total = gpus()
    if total == 0:
        return None
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = told.split(",")[:total] if told else [str(number) for number in range(total)]
    first = turn % max(1, total // count) * count
    return ",".join(names[first : first + count])
