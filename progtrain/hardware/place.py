"""Which of the processes of a run this one is, as whoever has started it tells in the environment.

torchrun's names are used throughout: a process that we start gets them as well, and those of `srun`
are translated once. Nothing here imports torch, so that the command line can look.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from progtrain.errors import EnvironmentProblem

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OWN = NAMES[:3]  # without an address they say that somebody meant it
_FIRST_PORT, _PORTS = 20000, 20000  # of SLURM jobs, by their number


@dataclass(frozen=True)
class Place:
    """A process among those of its run."""

    rank: int
    world: int
    local: int  # of the ranks on this machine
    local_world: int

    @property
    def first(self) -> bool:
        return self.rank == 0


def here() -> Place | None:
    """This process's place; None where it is alone, or where the names are incomplete."""
    if any(not os.environ.get(name) for name in NAMES):
        return None
    rank, world, local = (_number(name) for name in OWN)
    told = os.environ.get("LOCAL_WORLD_SIZE")
    return Place(rank, world, local, int(told) if told and told.isdigit() else world)


def among_several() -> Place | None:
    """This process's place where somebody else has started others with it."""
    place = here()
    return place if place is not None and place.world > 1 else None


def cpus() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_cores(place: Place) -> int | None:
    """Threads of a process that torchrun has started: it tells each to use one where nobody says
    otherwise, and a growth in the CPU's memory would take minutes. None: as the environment says.
    """
    told = os.environ.get("TORCHELASTIC_RUN_ID") and os.environ.get("OMP_NUM_THREADS") == "1"
    return max(1, cpus() // place.local_world) if told else None


def refuse_halves() -> None:
    """Raise `EnvironmentProblem` where some of the names are set and others are not."""
    missing = [name for name in NAMES if not os.environ.get(name)]
    given = [name for name in OWN if os.environ.get(name)]
    if given and missing:
        raise EnvironmentProblem(
            f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set, as torchrun does, but"
            f" {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not. Unset"
            f" {', '.join(given)}: hardware=ddp hardware.devices=<number> starts processes itself."
        )


def translate_slurm() -> None:
    """Give a task of `srun` torchrun's names; anything else is left as it is.

    Only a job step has SLURM_STEP_NUM_TASKS, so a batch script with several tasks, which runs once,
    is not taken for one of them. The first host of the step is where all meet.
    """
    told = os.environ
    if any(told.get(name) for name in OWN) or not told.get("SLURM_STEP_NUM_TASKS", "").isdigit():
        return
    world = int(told["SLURM_STEP_NUM_TASKS"])
    if world < 2 or "SLURM_PROCID" not in told or "SLURM_LOCALID" not in told:
        return
    hosts = told.get("SLURM_STEP_NODELIST") or told.get("SLURM_JOB_NODELIST", "")
    number = int(re.sub(r"\D", "", told.get("SLURM_JOB_ID", "")) or 0)
    nodes = told.get("SLURM_STEP_NUM_NODES") or told.get("SLURM_NNODES", "1")
    told.update(
        RANK=told["SLURM_PROCID"],
        WORLD_SIZE=str(world),
        LOCAL_RANK=told["SLURM_LOCALID"],
        LOCAL_WORLD_SIZE=str(max(1, world // int(nodes))),
    )
    told.setdefault("MASTER_ADDR", first_host(hosts))
    told.setdefault("MASTER_PORT", str(_FIRST_PORT + number % _PORTS))


def first_host(hosts: str) -> str:
    """The first of SLURM's list: node7 of `node[7-9,12],other3`; zeros in front are kept."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?", hosts)
    return "".join(part or "" for part in match.groups()) if match else "127.0.0.1"


def _number(name: str) -> int:
    told = os.environ[name]
    if not told.isdigit():
        raise EnvironmentProblem(
            f"{name}={told!r} must be a whole number >= 0, as torchrun sets it; or unset it."
        )
    return int(told)
