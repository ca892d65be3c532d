"""Short sequences first: every sample is cut to its beginning, less and less."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from progtrain.clock import Duration, Moment
from progtrain.curriculum.sizes import check_runs, check_sizes, first_size, size_at
from progtrain.curriculum.view import View
from progtrain.errors import ConfigError
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class SequenceLength:
    """Positions grow from `start` to all; a cut sample still counts as one sample.

    Reference: sequence length warmup, Li et al. 2021 (arXiv 2108.06084).
    """

    start: int | float = 0.25  # positions, or a share of all
    multiple: int = 8  # positions of one step
    length: str = "50%"  # until sequences are seen whole

    def __post_init__(self) -> None:
        check_sizes(self.start, self.multiple, self.length)

    @property
    def sets(self) -> frozenset[str]:
        return frozenset({"length"})

    def view(self, run: Run, since: Moment) -> View:
        progress = run.clock.progress(since, Duration.parse(self.length, "length"))
        full = run.probe.x.shape[1]
        first = first_size(self.start, full)
        return View(length=size_at(first, full, self.multiple, progress), progress=progress)

    def check(self, run: Run) -> None:
        if run.probe.x.ndim != 2:
            shape = "×".join(map(str, run.probe.x.shape[1:]))
            raise ConfigError(
                "curriculum=sequence_length needs sequences (positions); samples of this data set"
                f" are {shape}. For images use curriculum=image_size."
            )
        full = run.probe.x.shape[1]
        advice = "model=gpt takes sequences of any length up to data.length. Try curriculum=none."
        first = first_size(self.start, full)
        check_runs(run, first, full, self.multiple, lambda length: View(length=length), advice)

    def order(self, run: Run, setup: Setup) -> Tensor | None:
        return None
