"""A metric of torchmetrics, or any object with its methods, counted as ours are.

What is given to `update` are logits_NK and targets_N, a row a target. The states of each batch are
read and the object is reset, so it remembers nothing; they are joined as the class says (sum, max,
min, cat), and `compute` sees the whole. States that cannot be joined exactly (running means) are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from progtrain.errors import ConfigError
from progtrain.metrics.tally import Answers, Counted

if TYPE_CHECKING:
    from progtrain.setup import Setup

_JOINS = ("sum", "max", "min", "cat")


@dataclass(frozen=True)
class Library:
    """`metric` has update, compute, reset and states as `torchmetrics.Metric` has them."""

    name: str
    metric: Any

    def __post_init__(self) -> None:
        # only the states of a batch are reduced over processes, by whoever counts
        self.metric._to_sync = False

    @property
    def smaller(self) -> bool:
        return getattr(self.metric, "higher_is_better", None) is False

    @property
    def reductions(self) -> Mapping[str, str]:
        """torchmetrics keeps them as functions called `dim_zero_sum` and the like."""
        kept: Mapping[str, Any] = self.metric._reductions
        return {
            state: getattr(how, "__name__", "").removeprefix("dim_zero_")
            for state, how in kept.items()
        }

    def check(self, setup: Setup) -> None:
        odd = [state for state, how in self.reductions.items() if how not in _JOINS]
        if odd:
            raise ConfigError(
                f"metric.{self.name}: {type(self.metric).__name__} cannot be counted batch by batch"
                f" ({', '.join(odd)} is no sum, maximum, minimum or list). Try a metric of"
                " torchmetrics.classification."
            )
        known = getattr(self.metric, "num_classes", None)
        if isinstance(known, int) and known != setup.num_classes:
            raise ConfigError(
                f"metric.{self.name}.num_classes must be that of the data, {setup.num_classes}, got"
                f" {known}. Write num_classes: ${{data.num_classes}}."
            )

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        if not self._fits(answers):
            return {}
        metric = self._fresh(answers.y.device)
        metric.update(answers.logits, answers.y)
        seen = {state: getattr(metric, state) for state in self.reductions}
        states = {s: torch.cat(t) if isinstance(t, list) else t for s, t in seen.items()}
        metric.reset()  # which empties lists in place
        return states

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float | None:
        if not states:
            return None
        metric = self._fresh(next(iter(states.values())).device)
        for state, tensor in states.items():
            setattr(metric, state, [tensor] if self.reductions[state] == "cat" else tensor)
        metric._update_count = 1
        found: Tensor = metric.compute()
        metric.reset()
        if found.numel() != 1:
            raise ConfigError(
                f"metric.{self.name} gives {found.numel()} numbers, but one is wanted. Set its"
                " average, such as average: macro."
            )
        return float(found)

    def _fresh(self, device: torch.device) -> Any:
        metric = self.metric.to(device)
        metric.reset()
        return metric

    def _fits(self, answers: Answers) -> bool:
        """Whether the head has the classes that are counted; another one is left out, as by loss.

        Raises `ConfigError` where outputs have joined by a growth.
        """
        known, now = getattr(self.metric, "num_classes", None), answers.logits.shape[-1]
        if not isinstance(known, int) or known == now:
            return True
        if now < answers.classes:
            return False
        raise ConfigError(
            f"metric.{self.name} counts {known} classes, but the network has {now} outputs now."
            " Leave it out where outputs join (head=outputs), or use metric=macro_f1."
        )


def adapted(name: str, part: Any) -> Any:
    """A metric as evaluations count it; raises `ConfigError` for what is none."""
    if all(hasattr(part, each) for each in ("smaller", "check", "count", "value")):
        return part
    if all(hasattr(part, each) for each in ("update", "compute", "reset", "_reductions")):
        return Library(name, part)
    raise ConfigError(
        f"metric.{name} is a {type(part).__name__}, which is no metric: it needs smaller, check,"
        " count and value (progtrain/contracts/), or is a class of torchmetrics."
    )
