"""No debugging: the run as it is. Also what every mode leaves as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from progtrain.data.sets import Batches
from progtrain.run import StopReason

if TYPE_CHECKING:
    from progtrain.build import Parts
    from progtrain.debug.around import Around
    from progtrain.machine import Machine


@dataclass(frozen=True)
class NoDebug:
    """Changes nothing and looks at nothing."""

    status = "done"

    def trimmed(self, parts: Parts) -> Parts:
        return parts

    def cut(self, batches: Batches, size: int) -> Batches:
        return batches

    def drive(self, machine: Machine, around: Around) -> StopReason:
        return machine.go()
