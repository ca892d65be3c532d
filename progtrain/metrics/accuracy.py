"""Accuracy: the share of targets that have the largest logit.

What: targets found over all targets; of a sequence each position is one.
Equation: (1/N) Σ [argmax_k z_nk = y_n].
When it misleads: classes of unequal size; a class of 95 % gives 0.95 to a network that knows no
other. macro_f1 then says more.
Reference: none; as old as classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from progtrain.metrics.counting import Counting
from progtrain.metrics.tally import Answers, Counted
from progtrain.objective import correct


@dataclass(frozen=True)
class Accuracy(Counting):
    """In [0, 1]."""

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        return {"right": correct(answers.logits, answers.y)}

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float:
        return float(states["right"]) / counted.targets
