"""The norm of each layer's gradient at the last step before an evaluation.

A layer is a module that holds parameters of its own. Norms are those before clipping. They are
read at evaluations alone, off the gradients that the last step has left, so no step waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from progtrain.clock import Moment
from progtrain.errors import require
from progtrain.hardware.shards import whole
from progtrain.monitors.finding import Finding, Occasion, Watched
from progtrain.monitors.measurer import Measurer, remembered, stepped
from progtrain.monitors.monitor import told
from progtrain.run import Run
from progtrain.setup import Setup

TOTAL = "total"


@dataclass(frozen=True, kw_only=True)
class Gradients(Measurer):
    """Adds `gradients/<layer>` and `gradients/total`; warns of a layer over `limit`, once."""

    limit: float | None = 100.0  # norm of a layer's gradient over which it is told; null: never

    name = "gradients"
    idle = False  # it warns

    def __post_init__(self) -> None:
        good = self.limit is None or (isfinite(self.limit) and self.limit > 0)
        require(good, "limit", self.limit, "a finite number > 0, or null", "Try 100.")

    def measure(self, run: Run, setup: Setup) -> Mapping[str, float]:
        if not stepped(run):
            return remembered(run, "gradients/")
        names, norms_L = _norms(run)
        factor = _before_clipping(run, setup)
        values = [value * factor for value in norms_L.tolist()]
        total = sum(value**2 for value in values) ** 0.5
        return {f"gradients/{n}": v for n, v in zip((*names, TOTAL), (*values, total), strict=True)}

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        if occasion is not Occasion.OBSERVED or self.limit is None:
            return Watched()
        over = [
            (name.removeprefix("gradients/"), value)
            for name, value in self.measure(run, setup).items()
            if not value <= self.limit and name != f"gradients/{TOTAL}"
        ]
        return Watched(
            tuple(
                Finding(
                    f"the gradient of {layer} has the norm {value:.4g} at step"
                    f" {run.clock.step:,}, over the limit of {self.limit:g}",
                    blames=False,
                    key=f"{self.name}/{layer}",
                )
                for layer, value in over
                if told(run, f"{self.name}/{layer}", None) is None
            )
        )


def _norms(run: Run) -> tuple[list[str], Tensor]:
    """Layers, and the norms (layers,) of their gradients on the device."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in run.optimizer.parameters.items():
        if parameter.grad is not None:
            layers.setdefault(name.rpartition(".")[0] or name, []).append(parameter.grad)
    norms = [whole(torch.nn.utils.get_total_norm(grads)).float() for grads in layers.values()]
    return list(layers), torch.stack(norms)


def _before_clipping(run: Run, setup: Setup) -> float:
    """What clipping has divided the gradients by."""
    clip = setup.train.clip
    if clip == 0 or run.norm is None:
        return 1.0
    return max(1.0, float(run.norm) / clip)
