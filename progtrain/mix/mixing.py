"""What the ways of mixing share: which batches, and torchvision's transforms on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from progtrain.augment.images import sides
from progtrain.data.draws import Draws, seeded
from progtrain.data.sets import Sets
from progtrain.errors import ConfigError, require

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Mixing:
    """A share of the batches is mixed, each with a partner in the same batch."""

    alpha: float  # of the Beta(alpha, alpha) that says how much of each of the two
    share: float = 1.0  # of the batches

    name = ""

    def __post_init__(self) -> None:
        good = 0 < self.alpha <= 1e3
        require(good, "alpha", self.alpha, "in (0, 1000]", "mix=none mixes nothing.")
        good = 0 < self.share <= 1
        require(good, "share", self.share, "a share in (0, 1]", "mix=none mixes nothing.")

    def check(self, sets: Sets) -> None:
        sides(sets, f"mix={self.name}")
        if sets.train.y.ndim != 1:
            told = "×".join(map(str, sets.train.y.shape[1:]))
            raise ConfigError(
                f"mix={self.name} needs one label a sample; this data set has {told}. Use mix=none."
            )

    def transform(self, num_classes: int) -> Transform:
        """What mixes a batch x_BCHW, y_B into x_BCHW and probabilities y_BK."""
        raise NotImplementedError

    def __call__(
        self, x: Tensor, y: Tensor, num_classes: int, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        batch = Draws(draws.batch_seed(), 0, 1)
        if float(batch.uniform(1)) >= self.share:
            return x, y
        with seeded(batch.batch_seed()):
            return self.transform(num_classes)(x, y)
