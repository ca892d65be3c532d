"""How many processes a run is, on which devices: what kinds of hardware with several share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from progtrain.errors import ConfigError, EnvironmentProblem, require
from progtrain.hardware.devices import KINDS, gpus, listed, require_gpu
from progtrain.hardware.engine import Engine, Settings, check_precision
from progtrain.hardware.group import joined
from progtrain.hardware.place import Place, here, refuse_halves, share_of_cores
from progtrain.hardware.shards import Shards

_ON_CPU = 2  # processes where devices=null and there is no GPU
_MOST = 1024


@dataclass(frozen=True)
class Processes:
    """Processes of a run, one a device.

    `devices`: on this machine; None is every visible GPU, or 2 on a CPU. `device`: auto, cpu or
    gpu. `timeout`: seconds that a process waits for another before it gives up.
    """

    devices: int | None
    device: str
    timeout: float

    def __post_init__(self) -> None:
        ok = self.devices is None or 1 <= self.devices <= _MOST
        require(ok, "devices", self.devices, f"a whole number, 1 to {_MOST}, or null")
        require(self.device in KINDS, "device", self.device, f"one of {', '.join(KINDS)}")
        ok = 1 <= self.timeout <= 1e6
        require(ok, "timeout", self.timeout, "seconds, 1 to 1e6", "Try hardware.timeout=600.")

    def count(self, precision: str, fewest: int = 1) -> int:
        """How many a run is, on all machines; raises where this one lacks the devices for its own.

        `EnvironmentProblem` for what the machine lacks, `ConfigError` for a contradiction.
        """
        refuse_halves()
        place, kind = here(), self._kind()
        check_precision(torch.device(kind), precision)
        found = self._here(kind) if place is None else self._met(place)
        if kind == "cuda" and found > gpus():
            raise EnvironmentProblem(
                f"hardware.devices={found} processes need a GPU each, but the visible devices are"
                f" {listed()}. Try hardware.devices={gpus()}, or null for all."
            )
        world = found if place is None else place.world
        if world < fewest:
            raise ConfigError(
                f"This kind of hardware needs {fewest} processes or more, but hardware.devices="
                f"{found}. Try hardware.devices={fewest}, or hardware=auto for one process."
            )
        return world

    @property
    def on_gpus(self) -> bool:
        return self._kind() == "cuda"

    def open(
        self,
        settings: Settings,
        shards: Callable[[torch.device, int], Shards] | None = None,
    ) -> Engine:
        """This process's device, joined with the others where somebody has started them; each
        holds the whole network, or what `shards` makes of a device and a number of processes."""
        place, kind = here(), self._kind()
        if place is None:  # a look at a network: one process is enough
            return Engine(torch.device(kind), settings)
        device = torch.device(kind, place.local) if kind == "cuda" else torch.device(kind)
        group = joined(kind, self.timeout)
        settings = replace(settings, threads=settings.threads or share_of_cores(place))
        return Engine(device, settings, group, shards and shards(device, group.world))

    def deterministic(self, asked: bool | None) -> bool:
        """True on a CPU, false on a GPU, unless asked for otherwise."""
        return self._kind() == "cpu" if asked is None else asked

    def _kind(self) -> str:
        if self.device == "gpu":
            require_gpu("hardware.device=gpu")
        return "cpu" if self.device == "cpu" or gpus() == 0 else "cuda"

    def _here(self, kind: str) -> int:
        return self.devices or (gpus() if kind == "cuda" else _ON_CPU)

    def _met(self, place: Place) -> int:
        """What has been started must be what the settings say."""
        if self.devices not in (None, place.local_world):
            raise ConfigError(
                f"hardware.devices={self.devices}, but {place.local_world} were started (WORLD_SIZE"
                f" {place.world}, LOCAL_WORLD_SIZE {place.local_world}). Leave hardware.devices"
                " out: whoever starts the processes says how many there are."
            )
        return place.local_world
