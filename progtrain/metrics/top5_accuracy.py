"""Top-5 accuracy: the share of targets that are among the five largest logits.

Equation: (1/N) Σ [y_n in the 5 largest of z_n].
When it misleads: few classes; of five it is always 1, so six are asked for.
Reference: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, arXiv 1409.0575.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from progtrain.errors import ConfigError
from progtrain.metrics.counting import Counting
from progtrain.metrics.tally import Answers, Counted

if TYPE_CHECKING:
    from progtrain.setup import Setup

_BEST = 5


@dataclass(frozen=True)
class Top5Accuracy(Counting):
    """In [0, 1]."""

    def check(self, setup: Setup) -> None:
        if setup.num_classes <= _BEST:
            raise ConfigError(
                f"metric=top5_accuracy needs more than {_BEST} classes, and the data have"
                f" {setup.num_classes} (data.num_classes): it would be 1 whatever is learned. Try"
                " metric=accuracy."
            )

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        best = min(_BEST, answers.logits.shape[-1])  # a further head may know fewer classes
        top_NB = answers.logits.topk(best).indices
        return {"right": (top_NB == answers.y[:, None]).sum()}

    def value(self, states: Mapping[str, Tensor], counted: Counted) -> float:
        return float(states["right"]) / counted.targets
