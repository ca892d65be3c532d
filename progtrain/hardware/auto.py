"""The GPU where one is visible, else the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from progtrain.contracts import OptimizerRecipe
from progtrain.hardware.engine import Engine, Settings, check, check_precision


@dataclass(frozen=True)
class Auto:
    """Deterministic by default on a CPU, fast by default on a GPU."""

    precision: str = "fp32"  # fp32, tf32, bf16, fp16
    compile: bool | str = False  # or default (true), reduce-overhead, max-autotune
    compile_ahead: bool = False  # the next network's graphs in the background (ahead/)
    deterministic: bool | None = None  # null: true on a CPU, false on a GPU
    threads: int | None = None  # CPU threads; null: torch's choice
    data_on_device: bool = True
    activation_checkpointing: bool = False  # compute within blocks again for the backward pass

    def __post_init__(self) -> None:
        check(self)

    def processes(self) -> int:
        """One; raises `EnvironmentProblem` where the device or its precision is not there."""
        check_precision(self._device(), self.precision)
        return 1

    def suits(self, optimizer: OptimizerRecipe) -> None:
        """Any does."""

    def open(self) -> Engine:
        """Check that device and precision exist and set torch's switches."""
        device = self._device()
        deterministic = device.type == "cpu" if self.deterministic is None else self.deterministic
        rest = (self.threads, self.data_on_device, self.activation_checkpointing)
        settings = Settings(
            self.precision, self.compile, deterministic, *rest, compile_ahead=self.compile_ahead
        )
        return Engine(device, settings)

    @staticmethod
    def _device() -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
