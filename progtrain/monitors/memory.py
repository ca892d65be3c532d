"""What a run takes of the memory: of the GPU, or of the machine where it runs on a CPU."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from progtrain.monitors.measurer import Measurer
from progtrain.run import Run
from progtrain.setup import Setup

_MIB = 2**20
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which the system counts


@dataclass(frozen=True, kw_only=True)
class Memory(Measurer):
    """Adds `memory/peak_mib`: the most so far of what tensors on the GPU took, or of the resident
    set of the process."""

    name = "memory"

    def measure(self, run: Run, setup: Setup) -> Mapping[str, float]:
        device = setup.engine.device
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
            reserved = torch.cuda.max_memory_reserved(device)
            return {"memory/peak_mib": peak / _MIB, "memory/reserved_mib": reserved / _MIB}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
        return {"memory/peak_mib": peak / _MIB}
