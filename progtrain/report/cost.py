"""What a run's compute went into, for `result.json` and the last lines (docs/costs.md)."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

from progtrain.account import CHARGED, EVALUATION, TRAINING, UNCHARGED, Account
from progtrain.report.units import flops

if TYPE_CHECKING:
    from progtrain.run import Json, Run

_LEAST = 0.01  # of all FLOPs, that a line tells of
_MIB = 2**20
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which the system counts


def told(run: Run) -> dict[str, Json]:
    """FLOPs and seconds by word. Those under `flops` and `seconds` are charged, and their sums are
    the run's; those under `uncharged` are counted beside them."""
    account, now = run.clock.account, run.clock.now
    charged: dict[str, Json] = {what: account.flops.get(what, 0) for what in CHARGED}
    charged |= {w: n for w, n in account.flops.items() if w not in {*CHARGED, *UNCHARGED}}
    seconds = {what: n for what, n in account.seconds.items() if n}
    return {
        "flops": charged,
        "seconds": {what: n for what, n in seconds.items() if what not in UNCHARGED},
        "uncharged": {
            "flops": {what: account.flops.get(what, 0) for what in _counted(account)},
            "seconds": {what: n for what, n in seconds.items() if what in UNCHARGED},
        },
        "samples": now.samples,
        "tokens": account.tokens,
        "peak_mib": _peak_mib(run),
    }


def _counted(account: Account) -> list[str]:
    """What every run has beside its charged FLOPs, and what this one has."""
    return [what for what in UNCHARGED if what == EVALUATION or account.flops.get(what)]


def shares(run: Run) -> str:
    """One line where anything but training has cost more than 1 %; else nothing."""
    account = run.clock.account
    parts = [(what, share) for what, share in account.shares().items() if share > _LEAST]
    if not any(what != TRAINING for what, _ in parts):
        return ""
    words = ", ".join(f"{what} {share:.0%}" for what, share in parts)
    return f"of {flops(account.charged)}: {words}"


def _peak_mib(run: Run) -> float:
    """The most so far of what tensors on the GPU took, or of the resident set of the process."""
    device = run.probe.x.device
    if device.type == "cuda":
        import torch  # it is loaded: the probe is on the GPU

        return torch.cuda.max_memory_allocated(device) / _MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT / _MIB
