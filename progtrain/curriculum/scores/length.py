"""Short texts are easy: tokens of a sample that are no padding."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from progtrain.errors import ConfigError
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Length:
    """How many tokens of a sample differ from `padding`; Platanios et al. 2019 (arXiv 1903.09848).

    Data of windows side by side (data=text) have no padding, so there a token that only separates,
    such as 32 (space), can be named in its place: the score is then how many others a window has.
    """

    padding: int = 0  # token that fills up short samples

    def scores(self, run: Run, setup: Setup) -> Tensor:
        x = setup.batches.sets.train.held("curriculum/score=length")
        if x.ndim != 2 or x.is_floating_point():
            raise ConfigError(
                "curriculum/score=length counts tokens, and samples of this data set are"
                f" {'×'.join(map(str, x.shape[1:]))} of {str(x.dtype).removeprefix('torch.')}. Use"
                " curriculum/score=loss, compression or function."
            )
        lengths_N = (x != self.padding).sum(1)
        if bool((lengths_N == lengths_N[0]).all()):
            raise ConfigError(
                f"curriculum/score=length: all {len(x)} training samples have {int(lengths_N[0])}"
                f" tokens that are not curriculum.score.padding={self.padding}, so none is"
                " shorter. Use curriculum/score=loss or compression, or name the token that pads."
            )
        return lengths_N
