"""Two images become one picture: λ of one and 1 − λ of the other, labels in the same shares.

Reference: mixup, Zhang et al. 2018 (arXiv 1710.09412); one λ a batch, partners are neighbours in
the batch, as in `torchvision.transforms.v2.MixUp`, which does the work.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchvision.transforms import v2

from progtrain.mix.mixing import Mixing, Transform


@dataclass(frozen=True)
class Mixup(Mixing):
    """λ comes from Beta(alpha, alpha); training minimises the loss on the mixed labels."""

    alpha: float = 0.2

    name = "mixup"

    def transform(self, num_classes: int) -> Transform:
        return v2.MixUp(alpha=self.alpha, num_classes=num_classes)
