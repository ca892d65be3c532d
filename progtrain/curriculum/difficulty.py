"""Easy samples first: a share of the training data that grows, ordered by a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from progtrain.clock import Duration, Moment
from progtrain.curriculum.lasting import check_length
from progtrain.curriculum.view import View
from progtrain.errors import ConfigError, require
from progtrain.run import Run
from progtrain.setup import Setup


class Score(Protocol):
    """How hard each training sample is (group `curriculum/score`)."""

    def scores(self, run: Run, setup: Setup) -> Tensor:
        """One finite number a training sample (N,), the less the easier; raises `ConfigError`."""
        ...


class Pacing(Protocol):
    """How fast a curriculum goes (group `curriculum/pacing`)."""

    def share(self, start: float, progress: float) -> float:
        """Share of the samples at `progress` in [0, 1): `start` at 0, never less than before."""
        ...


@dataclass(frozen=True)
class Difficulty:
    """Each forward pass draws different samples out of the easiest share, all equally likely.

    At share 1 samples come as without a curriculum: one permutation an epoch, each sample once.

    Reference: Bengio et al. 2009 (ICML); drawing as in Platanios et al. 2019 (arXiv 1903.09848),
    algorithm 1.
    """

    score: Score
    pacing: Pacing
    start: float = 0.2  # share of the samples at the beginning
    length: str = "50%"  # until all samples are seen

    def __post_init__(self) -> None:
        require(0 < self.start < 1, "start", self.start, "a share in (0, 1)")
        check_length(self.length)

    @property
    def sets(self) -> frozenset[str]:
        return frozenset({"share"})

    def view(self, run: Run, since: Moment) -> View:
        progress = run.clock.progress(since, Duration.parse(self.length, "length"))
        if progress >= 1:
            return View()
        share = self.pacing.share(self.start, progress)
        return View(share=min(1.0, max(self.start, share)), progress=progress)

    def check(self, run: Run) -> None:
        pass

    def order(self, run: Run, setup: Setup) -> Tensor:
        """Samples with the same score stay in the order of the data."""
        scores_N = self.score.scores(run, setup).double().cpu()
        count = len(setup.batches.sets.train)
        if scores_N.shape != (count,):
            raise ConfigError(
                f"curriculum.score gave numbers of shape {tuple(scores_N.shape)}; it must give one"
                f" for each of the {count} training samples."
            )
        wrong = int((~scores_N.isfinite()).sum())
        if wrong:
            first = int((~scores_N.isfinite()).int().argmax())
            raise ConfigError(
                f"curriculum.score must be a finite number of every sample, got {wrong} that are"
                f" not (training sample {first}: {float(scores_N[first])}). Choose another score."
            )
        if bool((scores_N == scores_N[0]).all()):
            raise ConfigError(
                f"curriculum.score gives every training sample the same {float(scores_N[0]):g}, so"
                " none is easier than another. Try curriculum/score=loss, or curriculum=none."
            )
        return torch.argsort(scores_N, stable=True)
