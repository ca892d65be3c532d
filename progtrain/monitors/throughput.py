"""How fast training is between two evaluations, and where the time goes.

Seconds are those of the wall, of training alone: evaluations, growths and checkpoints are taken out
and told as shares of all time so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from progtrain.account import EVALUATION, GROWTH, STORING
from progtrain.monitors.measurer import Measurer
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True, kw_only=True)
class Throughput(Measurer):
    """Adds steps, samples and (of sequences) tokens a second, and shares of the time."""

    name = "throughput"

    def measure(self, run: Run, setup: Setup) -> Mapping[str, float]:
        lap = run.spent.lap
        if lap is None:
            return {}
        rates = {"steps_per_s": lap.steps / lap.seconds, "samples_per_s": lap.samples / lap.seconds}
        if run.probe.y.ndim > 1:  # one target a position
            length = run.view.length or run.probe.y[0].numel()
            rates["tokens_per_s"] = rates["samples_per_s"] * length
        shares = {f"{what}_share": run.spent.share(what) for what in (EVALUATION, GROWTH, STORING)}
        return {f"throughput/{name}": value for name, value in (rates | shares).items()}
