"""Several processes that each hold a part of every weight, gradient and optimizer state.

A block's weights come together while it computes: Zhao et al., PyTorch FSDP: Experiences on Scaling
Fully Sharded Data Parallel (2023), arXiv:2304.11277; ZeRO-3 of Rajbhandari et al. (2020),
arXiv:1910.02054.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.contracts import OptimizerRecipe
from progtrain.errors import EnvironmentProblem
from progtrain.hardware.engine import Engine, Settings, check
from progtrain.hardware.processes import Processes
from progtrain.hardware.shards import check_shards
from progtrain.hardware.torch_shards import TorchShards


@dataclass(frozen=True)
class FSDP:
    """One process a device; `train.batch_size` is the batch of all of them."""

    precision: str = "fp32"  # fp32, tf32, bf16
    compile: bool | str = False  # or default, reduce-overhead, max-autotune
    compile_ahead: bool = False  # the next network's graphs in the background (ahead/)
    deterministic: bool | None = None  # null: true on a CPU, false on a GPU
    threads: int | None = None  # CPU threads of each process; null: an equal share
    data_on_device: bool = True
    activation_checkpointing: bool = False  # compute within blocks again for the backward pass
    sync_norm: bool = True  # batch norm looks at the batch of all processes
    offload: bool = False  # weights, gradients and optimizer state wait in the CPU's memory
    grow_on: str = "cpu"  # or device: where the network is whole while it grows
    devices: int | None = None  # processes on this machine; null: every GPU, or 2 on a CPU
    device: str = "auto"  # auto, cpu, gpu
    timeout: float = 600  # seconds that one process waits for another

    def __post_init__(self) -> None:
        check(self)
        check_shards(self.precision, self.grow_on)
        self._all()

    def processes(self) -> int:
        """How many processes a run is; raises where this machine lacks devices."""
        if self.offload and not self._all().on_gpus:
            raise EnvironmentProblem(
                "hardware.offload=true moves what waits to the CPU's memory, where it is already:"
                " there is no GPU. Use hardware.offload=false."
            )
        return self._all().count(self.precision, fewest=2)

    def suits(self, optimizer: OptimizerRecipe) -> None:
        """Any does."""

    def open(self) -> Engine:
        """Join the other processes and set torch's switches."""
        deterministic = self._all().deterministic(self.deterministic)
        rest = (self.threads, self.data_on_device, self.activation_checkpointing, self.sync_norm)
        settings = Settings(
            self.precision, self.compile, deterministic, *rest, compile_ahead=self.compile_ahead
        )
        return self._all().open(settings, self._shards)

    def _shards(self, device: torch.device, world: int) -> TorchShards:
        home = device if self.grow_on == "device" else torch.device("cpu")
        return TorchShards(device, world, home, self.offload)

    def _all(self) -> Processes:
        return Processes(self.devices, self.device, self.timeout)
