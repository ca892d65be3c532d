"""Small images first: cheap steps at the beginning, the full size at the end."""

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
class ImageSize:
    """The shorter side grows from `start` to the full one; evaluation always has the full one.

    Reference: progressive resizing as in Tan & Le 2021 (arXiv 2104.00298), section 4.2.
    """

    start: int | float = 0.5  # pixels of the shorter side, or a share of the full ones
    multiple: int = 4  # pixels of one step
    length: str = "50%"  # until images are seen in full

    def __post_init__(self) -> None:
        check_sizes(self.start, self.multiple, self.length)

    @property
    def sets(self) -> frozenset[str]:
        return frozenset({"side"})

    def view(self, run: Run, since: Moment) -> View:
        progress = run.clock.progress(since, Duration.parse(self.length, "length"))
        full = min(run.probe.x.shape[-2:])
        side = size_at(first_size(self.start, full), full, self.multiple, progress)
        return View(side=side, progress=progress)

    def check(self, run: Run) -> None:
        if run.probe.x.ndim != 4 or not run.probe.x.is_floating_point():
            shape = "×".join(map(str, run.probe.x.shape[1:]))
            raise ConfigError(
                "curriculum=image_size needs images (channels, height, width); samples of this data"
                f" set are {shape}. For sequences use curriculum=sequence_length."
            )
        full = min(run.probe.x.shape[-2:])
        advice = (
            "model=cnn, model=resnet and most of model=torchvision take images of any size;"
            " model=mlp and model=vit take one size only. Try one of those, curriculum=difficulty,"
            " or, where the model takes several sizes, a larger curriculum.start."
        )
        first = first_size(self.start, full)
        check_runs(run, first, full, self.multiple, lambda side: View(side=side), advice)

    def order(self, run: Run, setup: Setup) -> Tensor | None:
        return None
