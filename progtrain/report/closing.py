"""What the end of a run tells beside its metrics: how fast it was, and what it has kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from progtrain.best import ranked

if TYPE_CHECKING:
    from progtrain.run import Run

# numbers of monitors, which are no figures of the network (monitors/measurer.py)
MEASURED = ("gradients/", "learning_rate/", "throughput/", "memory/", "mfu/")
_SPEED = {
    "throughput/samples_per_s": "{:,.0f} samples/s",
    "throughput/tokens_per_s": "{:,.0f} tokens/s",
    "throughput/steps_per_s": "{:,.3g} steps/s",
    "throughput/evaluation_share": "{:.0%} of the time in evaluations",
    "throughput/growth_share": "{:.0%} in growths",
    "mfu/share": "MFU {:.1%}",
    "memory/peak_mib": "memory up to {:,.0f} MiB",
}


def best(run: Run) -> str:
    """The checkpoints that stay beside the newest ones, the best first."""
    return "checkpoints/best: " + ", ".join(name for name, *_ in ranked(run))


def pace(found: Mapping[str, float]) -> str:
    """Mean throughput, peak memory and MFU, as far as monitors have measured them."""
    return ", ".join(text.format(found[name]) for name, text in _SPEED.items() if name in found)
