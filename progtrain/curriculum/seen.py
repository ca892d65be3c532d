"""A training batch as a view shows it: which samples, in which size.

Shapes: x_BCHW (batch, channels, height, width) for images, x_BT (batch, positions) for sequences.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from progtrain.curriculum.view import View
from progtrain.data.draws import Draws
from progtrain.data.sets import Batches, mixed
from progtrain.run import Run
from progtrain.setup import Setup

# keep what is drawn here apart from whatever else a seed is mixed with
_DRAWS, _AUGMENT = 0x5EED, 0xA09


def training_batch(run: Run, setup: Setup, part: int, size: int) -> tuple[Tensor, Tensor]:
    """Forward pass `part` of the coming step: `size` samples and their targets, or of several
    processes this one's share of them.

    Augmented, normalised, in the view's size, mixed; what is drawn depends on the run's seed and
    the samples' places in the stream alone.
    """
    position = run.clock.now.samples + part * size
    places = _places(run, setup.batches, position, size, setup.engine.group.share(size))
    index, draws = next(places)
    x, y = setup.batches.taken(index, draws, setup.augments, places)
    x, y = shaped(x, run.view), cut(y, run.view)
    return setup.mix(x, y, setup.num_classes, draws.named("mix"))


def _places(
    run: Run, batches: Batches, position: int, size: int, share: slice
) -> Iterator[tuple[Tensor, Draws]]:
    """`share` of the batches of the stream from `position` on, as long as the view stays what it
    is."""
    while True:
        index = drawn(run.order, run.view.share, batches, position, size)[share]
        yield index, Draws(mixed(batches.seed, _AUGMENT), position + share.start, len(index))
        position += size


def drawn(
    order_N: Tensor | None, share: float, batches: Batches, position: int, size: int
) -> Tensor:
    """Indices (size,) of the training samples of a forward pass at `position`."""
    if share < 1:
        assert order_N is not None
        return easy(order_N, share, mixed(batches.seed, _DRAWS), position, size)
    return batches.indices(position, size)


def easy(order_N: Tensor, share: float, seed: int, position: int, size: int) -> Tensor:
    """`size` different indices (size,) out of the easiest share, each as likely as any other.

    A pure function of its arguments; where the share has fewer than `size` samples, it is all of
    the `size` easiest.
    """
    count = min(len(order_N), max(size, ceil(share * len(order_N) - 1e-9)))
    drawn = random.Random(mixed(seed, position)).sample(range(count), size)
    return order_N[torch.tensor(drawn)]


def shaped(x: Tensor, view: View) -> Tensor:
    """Images in the view's size, sequences up to its length.

    Images are resized after they have been normalised, on the device and a batch at a time, by
    bilinear interpolation that averages over what it leaves out (antialias).
    """
    if view.side is not None:
        size = image_size(x.shape[-2], x.shape[-1], view.side)
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    return cut(x, view)


def cut(sequence: Tensor, view: View) -> Tensor:
    """The first positions of inputs or of targets (batch, positions); a target a sample stays."""
    if view.length is None or sequence.ndim < 2:
        return sequence
    return sequence[:, : view.length]


def image_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width in proportion, the shorter one `side` pixels."""
    shorter = min(height, width)
    return max(1, round(height * side / shorter)), max(1, round(width * side / shorter))
