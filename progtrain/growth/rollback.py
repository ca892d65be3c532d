"""Undo a growth that has happened, exactly.

A growth swaps a grown copy in and leaves the host as it was, so the way back is to keep the host:
weights, attributes and modes are the very objects of before. Optimizer state of tensors that did
not grow goes on in the new optimizer, so it is copied here. Both cost memory for as long as the way
back is to stay open.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from progtrain.optimizers.group import OptimizerSet, State
from progtrain.run import Event, Run


@dataclass(frozen=True)
class Before:
    """A run's network and all that belongs to it, before a growth."""

    model: nn.Module
    average: nn.Module | None
    optimizer: OptimizerSet
    states: Mapping[str, State]  # of the optimizer, copied
    events: tuple[Event, ...]
    params: int
    flops: float

    @staticmethod
    def of(run: Run) -> Before:
        states = {
            name: {key: tensor.clone() for key, tensor in run.optimizer.state_of(name).items()}
            for name in run.optimizer.parameters
        }
        average = copy.deepcopy(run.average)
        return Before(
            run.model, average, run.optimizer, states, tuple(run.events), run.params, run.flops
        )

    def restore(self, run: Run) -> None:
        """Put everything back; what training has cost since is not given back."""
        run.model, run.optimizer, run.events = self.model, self.optimizer, list(self.events)
        run.params, run.flops, run.average = self.params, self.flops, self.average
        for name, state in self.states.items():
            run.optimizer.load(name, {key: tensor.clone() for key, tensor in state.items()})
