"""Several processes that each hold a part of every weight, gradient and optimizer state, by
DeepSpeed: ZeRO-3 of Rajbhandari et al. (2020), arXiv:1910.02054.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from progtrain.contracts import OptimizerRecipe
from progtrain.errors import ConfigError, EnvironmentProblem
from progtrain.hardware.engine import Engine, Settings, check
from progtrain.hardware.processes import Processes
from progtrain.hardware.shards import check_shards
from progtrain.hardware.zero import ZeroShards
from progtrain.optimizers.entries import by_entries


@dataclass(frozen=True)
class DeepSpeed:
    """One process a device; `train.batch_size` is the batch of all of them."""

    precision: str = "fp32"  # fp32, tf32, bf16
    deterministic: bool | None = None  # null: true on a CPU, false on a GPU
    threads: int | None = None  # CPU threads of each process; null: an equal share
    data_on_device: bool = True
    activation_checkpointing: bool = False  # compute within blocks again for the backward pass
    sync_norm: bool = True  # batch norm looks at the batch of all processes
    grow_on: str = "cpu"  # or device: where the network is whole while it grows
    devices: int | None = None  # processes on this machine; null: every GPU, or 2 on a CPU
    device: str = "auto"  # auto, cpu, gpu
    timeout: float = 600  # seconds that one process waits for another

    def __post_init__(self) -> None:
        check(self._settings(deterministic=False))
        check_shards(self.precision, self.grow_on)
        self._all()

    def processes(self) -> int:
        """How many processes a run is; raises where this machine lacks devices or DeepSpeed."""
        if find_spec("deepspeed") is None:
            raise EnvironmentProblem(
                "hardware=deepspeed needs the package deepspeed: pip install"
                " 'progtrain[deepspeed]'. hardware=fsdp shards the same by torch alone."
            )
        return self._all().count(self.precision, fewest=2)

    def suits(self, optimizer: OptimizerRecipe) -> None:
        """Raise `ConfigError` where parts that lie flat cannot be stepped as the whole is."""
        if not by_entries(optimizer):
            raise ConfigError(
                f"hardware=deepspeed cannot step by {type(optimizer).__name__}: parameters lie flat"
                " there, and its update of an entry hangs on the others of the matrix. Use"
                " hardware=fsdp, or optimizer=adamw, sgd or torch."
            )

    def open(self) -> Engine:
        """Join the other processes and set torch's switches."""
        settings = self._settings(self._all().deterministic(self.deterministic))
        return self._all().open(settings, self._shards)

    def _settings(self, deterministic: bool) -> Settings:
        rest = (self.threads, self.data_on_device, self.activation_checkpointing, self.sync_norm)
        return Settings(self.precision, False, deterministic, *rest)

    def _shards(self, device: torch.device, world: int) -> ZeroShards:
        home = device if self.grow_on == "device" else torch.device("cpu")
        return ZeroShards(device, world, home, self.precision == "bf16")

    def _all(self) -> Processes:
        return Processes(self.devices, self.device, self.timeout)
