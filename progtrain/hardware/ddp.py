"""Several processes that each hold the whole network and take a share of every batch.

Gradients are averaged over them after each backward pass: Li et al., PyTorch Distributed:
Experiences on Accelerating Data Parallel Training (2020), arXiv:2006.15704.
"""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.contracts import OptimizerRecipe
from progtrain.hardware.engine import Engine, Settings, check
from progtrain.hardware.processes import Processes


@dataclass(frozen=True)
class DDP:
    """One process a device; `train.batch_size` is the batch of all of them."""

    precision: str = "fp32"  # fp32, tf32, bf16, fp16
    compile: bool | str = False  # or default, reduce-overhead, max-autotune
    compile_ahead: bool = False  # the next network's graphs in the background (ahead/)
    deterministic: bool | None = None  # null: true on a CPU, false on a GPU
    threads: int | None = None  # CPU threads of each process; null: an equal share
    data_on_device: bool = True
    activation_checkpointing: bool = False  # compute within blocks again for the backward pass
    sync_norm: bool = True  # batch norm looks at the batch of all processes
    devices: int | None = None  # processes on this machine; null: every GPU, or 2 on a CPU
    device: str = "auto"  # auto, cpu, gpu
    timeout: float = 600  # seconds that one process waits for another

    def __post_init__(self) -> None:
        check(self)
        self._all()

    def processes(self) -> int:
        """How many processes a run is; raises where this machine lacks devices."""
        return self._all().count(self.precision)

    def suits(self, optimizer: OptimizerRecipe) -> None:
        """Any does."""

    def open(self) -> Engine:
        """Join the other processes and set torch's switches."""
        deterministic = self._all().deterministic(self.deterministic)
        rest = (self.threads, self.data_on_device, self.activation_checkpointing, self.sync_norm)
        settings = Settings(
            self.precision, self.compile, deterministic, *rest, compile_ahead=self.compile_ahead
        )
        return self._all().open(settings)

    def _all(self) -> Processes:
        return Processes(self.devices, self.device, self.timeout)
