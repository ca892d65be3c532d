"""A rectangle of another image is pasted over each one, labels in the shares of the area.

Reference: CutMix, Yun et al. 2019 (arXiv 1905.04899); one rectangle a batch, partners are
neighbours in the batch, as in `torchvision.transforms.v2.CutMix`, which does the work.
"""

from __future__ import annotations

from dataclasses import dataclass

from torchvision.transforms import v2

from progtrain.mix.mixing import Mixing, Transform


@dataclass(frozen=True)
class Cutmix(Mixing):
    """The area that stays comes from Beta(alpha, alpha)."""

    alpha: float = 1.0

    name = "cutmix"

    def transform(self, num_classes: int) -> Transform:
        return v2.CutMix(alpha=self.alpha, num_classes=num_classes)
