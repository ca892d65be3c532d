"""What the metrics here have in common: they fit every run, and more of them is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from progtrain.metrics.tally import Answers

if TYPE_CHECKING:
    from progtrain.setup import Setup


@dataclass(frozen=True)
class Counting:
    """A metric of every run that counts nothing of its own."""

    smaller = False

    def check(self, setup: Setup) -> None:
        """Nothing to refuse."""

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        return {}
