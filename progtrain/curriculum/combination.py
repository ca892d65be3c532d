"""Several curricula at once, each of another side of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from progtrain.clock import Moment
from progtrain.contracts import Curriculum
from progtrain.curriculum.view import View
from progtrain.errors import require
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Combination:
    """Curricula by name; one that is null is left out. It is over when the last one is."""

    curricula: Mapping[str, Curriculum | None]

    def __post_init__(self) -> None:
        require(bool(self._parts), "curricula", {}, "at least one named curriculum")
        owners: dict[str, str] = {}
        for name, part in self._parts.items():
            for field in sorted(part.sets):
                first = owners.setdefault(field, name)
                hint = f"Leave one out: curriculum.curricula.{name}=null."
                allowed = f"of another side of the data than {first!r} (both set its {field})"
                require(first == name, f"curricula.{name}", type(part).__name__, allowed, hint)

    @property
    def _parts(self) -> dict[str, Curriculum]:
        return {name: part for name, part in self.curricula.items() if part is not None}

    @property
    def sets(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.sets for part in self._parts.values()))

    def view(self, run: Run, since: Moment) -> View:
        merged = View()
        for part in self._parts.values():
            view = part.view(run, since)
            fields = {name: getattr(view, name) for name in part.sets}
            merged = replace(merged, **fields, progress=min(merged.progress, view.progress))
        return merged

    def check(self, run: Run) -> None:
        for part in self._parts.values():
            part.check(run)

    def order(self, run: Run, setup: Setup) -> Tensor | None:
        orders = [part.order(run, setup) for part in self._parts.values()]
        return next((order for order in orders if order is not None), None)
