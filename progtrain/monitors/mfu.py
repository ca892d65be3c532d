"""Model FLOPs utilisation: the FLOPs of training a second over what the device can do.

FLOPs are those of the clock (forward and backward, two a multiplication and addition), so what is
computed twice does not count (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). Peaks of GPUs
are those of their data sheets, dense, without sparsity; that of a CPU is measured once, as the
fastest product of two matrices.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

import torch

from progtrain.errors import ConfigError, require
from progtrain.hardware.engine import Engine
from progtrain.monitors.measurer import Measurer
from progtrain.run import Run
from progtrain.setup import Setup

# TFLOP/s of half precision, tf32 and fp32 by what a GPU's name holds; the first that fits counts
PEAKS = {
    "B200": (2250.0, 1125.0, 75.0),
    "H100 PCIe": (756.0, 378.0, 51.0),
    "H100": (989.0, 495.0, 67.0),
    "H200": (989.0, 495.0, 67.0),
    "A100": (312.0, 156.0, 19.5),
    "L40S": (362.0, 183.0, 91.6),
    "L4": (121.0, 60.0, 30.3),
    "RTX 4090": (165.0, 82.6, 82.6),
    "RTX 3090": (71.0, 35.6, 35.6),
}
_SIZE, _ROUNDS = 1024, 5  # of the product that finds a CPU's peak


@dataclass(frozen=True, kw_only=True)
class MFU(Measurer):
    """Adds `mfu/share`, and `mfu/tflops` a second."""

    peak_tflops: float | None = None  # of the device at this precision; null: known or measured

    name = "mfu"

    def __post_init__(self) -> None:
        good = self.peak_tflops is None or (isfinite(self.peak_tflops) and self.peak_tflops > 0)
        require(good, "peak_tflops", self.peak_tflops, "a finite number > 0, or null")

    def check(self, setup: Setup) -> None:
        device = setup.engine.device
        if self.peak_tflops is None and device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            if not any(known in name for known in PEAKS):
                raise ConfigError(
                    f"The peak of {name} is not known: set monitor.mfu.peak_tflops to what its data"
                    f" sheet says for {setup.engine.settings.precision}, dense, or leave mfu out."
                )

    def measure(self, run: Run, setup: Setup) -> Mapping[str, float]:
        lap = run.spent.lap
        if lap is None:
            return {}
        reached = lap.flops / lap.seconds / 1e12
        peak = self.peak_tflops or known_peak(setup.engine)
        return {"mfu/share": reached / peak, "mfu/tflops": reached}


def known_peak(engine: Engine) -> float:
    """TFLOP/s of the device at the precision of the run."""
    precision = engine.settings.precision
    if engine.device.type != "cuda":
        return _measured(precision, torch.get_num_threads())
    name = torch.cuda.get_device_name(engine.device)
    half, tf32, fp32 = next(peaks for known, peaks in PEAKS.items() if known in name)
    return {"bf16": half, "fp16": half, "tf32": tf32}.get(precision, fp32)


@lru_cache(maxsize=8)
def _measured(precision: str, threads: int) -> float:
    """The fastest of a few products of two square matrices on the CPU, TFLOP/s."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a_NN = torch.ones(_SIZE, _SIZE, dtype=dtype)
    seconds: list[float] = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        torch.mm(a_NN, a_NN)
        seconds.append(time.perf_counter() - begun)
    return 2 * _SIZE**3 / min(seconds) / 1e12
