"""Loss and gradient norm of the last optimizer steps.

They stay on the device, so noting them waits for nothing; reading them waits once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

_NOTHING = -inf  # a step that has not been, or was rolled back


@dataclass(frozen=True)
class Recent:
    """Step t is in column t mod S of `values_2S`: its loss, its gradient norm."""

    values_2S: Tensor  # noqa: N815 - a legend, as everywhere

    @staticmethod
    def of(steps: int, device: torch.device) -> Recent:
        return Recent(torch.full((2, steps), _NOTHING, device=device))

    @property
    def steps(self) -> int:
        return self.values_2S.shape[1]

    def note(self, step: int, loss: Tensor, norm: Tensor) -> None:
        self.values_2S[0, step % self.steps] = loss
        self.values_2S[1, step % self.steps] = norm

    def forget(self, after: int, last: int) -> None:
        """Steps after `after` up to `last` were rolled back with what they had trained."""
        columns = [step % self.steps for step in self._kept(after, last)]
        self.values_2S[:, columns] = _NOTHING

    def between(self, after: int, last: int) -> tuple[list[float], list[float]]:
        """Losses and gradient norms of the steps after `after` up to `last`, where there are any.

        Waits for the device.
        """
        columns = [step % self.steps for step in self._kept(after, last)]
        losses, norms = self.values_2S[:, columns].tolist()
        return _known(losses), _known(norms)

    def resized(self, steps: int, last: int) -> Recent:
        """The same with room for `steps`; `last` is the last step noted."""
        other = Recent.of(steps, self.values_2S.device)
        for step in self._kept(last - steps, last):
            other.values_2S[:, step % steps] = self.values_2S[:, step % self.steps]
        return other

    def _kept(self, after: int, last: int) -> range:
        return range(max(after, last - self.steps, 0) + 1, last + 1)


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if value != _NOTHING]
