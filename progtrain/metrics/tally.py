"""Counts a head's answers over batches, so that the figure is that of all targets at once.

A metric gives the states of a batch, such as how many targets were right, and its value is computed
from the states of all batches. So an uneven last batch weighs what it holds, two halves of a split
counted apart can be merged, and states are what processes must reduce. Nothing waits for the device
before `figures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from progtrain.contracts import Metric
from progtrain.metrics.names import LOSS

States = Mapping[str, Tensor]
# Reduces a tensor over processes: by sum, max or min, or all of them behind each other (cat).
Over = Callable[[Tensor, str], Tensor]

SUM = "sum"
_JOINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    SUM: torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
    "cat": lambda one, other: torch.cat([one, other]),
}


@dataclass(frozen=True)
class Answers:
    """What a head says of the N targets of a batch."""

    logits: Tensor  # (N, K), float32 or float64
    y: Tensor  # (N,)
    classes: int  # of the targets, and outputs of the network; a head may have fewer

    @staticmethod
    def of(logits: Tensor, y: Tensor, classes: int) -> Answers:
        """Logits (..., K) and targets (...), a row each."""
        return Answers(logits.flatten(0, -2), y.flatten(), classes)


@dataclass(frozen=True)
class Counted:
    """What every metric may use beside its own states."""

    targets: int
    cross_entropy: float | None  # mean over the targets, in nats; None: the head lacks classes
    bytes_per_target: float | None  # of text


@dataclass
class Tally:
    """The states of every metric over what has been seen so far."""

    metrics: Mapping[str, Metric]
    bytes_per_target: float | None = None
    targets: int = 0
    cross_entropy: Tensor | None = None  # summed, float64, on the device
    states: dict[str, dict[str, Tensor]] = field(
        default_factory=lambda: dict[str, dict[str, Tensor]]()
    )

    def add(self, answers: Answers, cross_entropy: Tensor | None) -> None:
        """Count a batch; `cross_entropy` is summed over its targets."""
        states = {name: dict(metric.count(answers)) for name, metric in self.metrics.items()}
        total = cross_entropy.double() if cross_entropy is not None else None
        self._take(len(answers.y), total, states)

    def merge(self, other: Tally) -> None:
        """Count what `other` has counted of the same metrics as well."""
        self._take(other.targets, other.cross_entropy, other.states)

    def reduced(self, over: Over) -> Tally:
        """The tally of all processes; each of them must have seen a batch."""
        found = Tally(self.metrics, self.bytes_per_target)
        device = next((t.device for each in self.states.values() for t in each.values()), None)
        found.targets = int(over(torch.tensor(self.targets, device=device), SUM))
        if self.cross_entropy is not None:
            found.cross_entropy = over(self.cross_entropy, SUM)
        for name, states in self.states.items():
            found.states[name] = {s: over(t, self._how(name, s)) for s, t in states.items()}
        return found

    def figures(self) -> dict[str, float]:
        """The loss, then every metric by its name; what a head cannot tell is left out."""
        mean = None if self.cross_entropy is None else float(self.cross_entropy) / self.targets
        counted = Counted(self.targets, mean, self.bytes_per_target)
        found: dict[str, float | None] = {LOSS: mean}
        for name, metric in self.metrics.items():
            found[name] = metric.value(self.states[name], counted)
        return {name: value for name, value in found.items() if value is not None}

    def _take(
        self, targets: int, cross_entropy: Tensor | None, states: Mapping[str, States]
    ) -> None:
        self.targets += targets
        if cross_entropy is not None:
            before = self.cross_entropy
            self.cross_entropy = cross_entropy if before is None else before + cross_entropy
        for name, new in states.items():
            known = self.states.setdefault(name, {})
            for state, tensor in new.items():
                join = _JOINED[self._how(name, state)]
                known[state] = join(known[state], tensor) if state in known else tensor

    def _how(self, name: str, state: str) -> str:
        """How two values of a state become one; a metric need only say where that is no sum."""
        return getattr(self.metrics[name], "reductions", {}).get(state, SUM)
