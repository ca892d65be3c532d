"""The learning rate of each group of parameters at the last step before an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.monitors.measurer import Measurer, remembered, stepped
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True, kw_only=True)
class LearningRate(Measurer):
    """Adds `learning_rate/<optimizer>`, `.../growth_<n>` for what a living growth has brought."""

    name = "learning_rate"

    def measure(self, run: Run, setup: Setup) -> Mapping[str, float]:
        if not stepped(run):
            return remembered(run, "learning_rate/")
        rates: dict[str, float] = {}
        for optimizer in run.optimizer.optimizers:
            kind = type(optimizer).__name__.removeprefix("Sliced").lower()
            for group in optimizer.param_groups:
                event = group.get("event", -1)
                alive = event >= 0 and run.events[event].alive  # else it is the host's by now
                parts = [kind, group.get("pattern", ""), f"growth_{event + 1}" * alive]
                rates["learning_rate/" + "/".join(part for part in parts if part)] = group["lr"]
        return rates
