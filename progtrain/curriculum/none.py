"""All training data as they are, from the first step on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from progtrain.curriculum.view import View

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.clock import Moment
    from progtrain.run import Run
    from progtrain.setup import Setup


@dataclass(frozen=True)
class NoCurriculum:
    """The baseline: nothing is left out, cut or made smaller."""

    @property
    def sets(self) -> frozenset[str]:
        return frozenset()

    def view(self, run: Run, since: Moment) -> View:
        return View()

    def check(self, run: Run) -> None:
        pass

    def order(self, run: Run, setup: Setup) -> Tensor | None:
        return None
