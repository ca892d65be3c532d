"""Multistep: the rate falls by a factor at each of a list of milestones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from progtrain.errors import require
from progtrain.schedulers.shape import When, is_number, positive


def multistep(passed: int, gamma: float) -> float:
    """Multiply the learning rate by `gamma` at every milestone.

    m(t) = gamma ^ |{i : milestone_i <= t}|.

    Reference: torch.optim.lr_scheduler.MultiStepLR; a milestone named twice counts twice, as there.
    """
    return gamma**passed


@dataclass(frozen=True)
class Multistep:
    """`multistep` at milestones that may be in different units."""

    milestones: Sequence[str] = ("50%", "75%")
    gamma: float = 0.1

    def __post_init__(self) -> None:
        given, allowed = self.milestones, "a list with at least one length"
        require(_is_list(given), "milestones", given, allowed, "Try [50%, 75%].")
        for milestone in self.milestones:
            positive(milestone, "milestones")
        require(is_number(self.gamma, 0), "gamma", self.gamma, "a number >= 0", "Try 0.1.")

    def multiplier(self, when: When) -> float:
        lengths = [positive(milestone, "milestones") for milestone in self.milestones]
        return multistep(sum(when.completed(length) >= 1 for length in lengths), self.gamma)


def _is_list(value: object) -> bool:
    # a lone "50%" is a sequence too, of letters
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
