"""What a run's compute went into, for `result.json`, the last lines and `task=inspect`
(docs/costs.md)."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from progtrain.account import CHARGED, EVALUATION, TRAINING, UNCHARGED, Account
from progtrain.report.units import flops, seconds

if TYPE_CHECKING:
    from progtrain.clock import Moment
    from progtrain.run import Json, Run

_LEAST = 0.01  # of all FLOPs, that a line tells of
_MIB = 2**20
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in which the system counts


def told(run: Run) -> dict[str, Json]:
    """FLOPs and seconds by word, and the memory that this process has taken."""
    return {**by_word(run.clock.account, run.clock.now), "peak_mib": _peak_mib(run)}


def by_word(account: Account, now: Moment) -> dict[str, Json]:
    """Words under `flops` and `seconds` are charged, and their sums are the run's; those under
    `uncharged` are counted beside them."""
    charged: dict[str, Json] = {what: account.flops.get(what, 0) for what in CHARGED}
    charged |= {w: n for w, n in account.flops.items() if w not in {*CHARGED, *UNCHARGED}}
    timed = {what: n for what, n in account.seconds.items() if n}
    return {
        "flops": charged,
        "seconds": {what: n for what, n in timed.items() if what not in UNCHARGED},
        "uncharged": {
            "flops": {what: account.flops.get(what, 0) for what in _counted(account)},
            "seconds": {what: n for what, n in timed.items() if what in UNCHARGED},
        },
        "samples": now.samples,
        "tokens": account.tokens,
    }


def _counted(account: Account) -> list[str]:
    """What every run has beside its charged FLOPs, and what this one has."""
    return [what for what in UNCHARGED if what == EVALUATION or account.flops.get(what)]


def lines(account: Account) -> list[str]:
    """`cost: 2.1 GFLOP: training 1.9 GFLOP, growth …; uncharged: evaluation …`, and `time: …`."""
    return [
        f"cost: {_sentence(account.flops, flops)}",
        f"time: {_sentence(account.seconds, seconds)}",
    ]


def _sentence(counts: Mapping[str, float], text: Callable[[float], str]) -> str:
    """The sum of what is charged, its words from the largest on, and what is not charged."""
    counted = sorted(counts.items(), key=lambda item: -item[1])
    charged = {what: n for what, n in counted if n and what not in UNCHARGED}
    beside = {what: n for what, n in counted if n and what in UNCHARGED}
    parts = [", ".join(f"{what} {text(n)}" for what, n in each.items()) for each in
             (charged, beside)]  # fmt: skip
    told = text(sum(charged.values())) + (f": {parts[0]}" if charged else "")
    return told + (f"; uncharged: {parts[1]}" if beside else "")


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
