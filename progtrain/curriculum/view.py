"""What of the training data a step sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """What of the training data a step sees; the defaults are all of it, as it is."""

    share: float = 1.0  # of the training samples, the easiest, in (0, 1]
    side: int | None = None  # pixels of an image's shorter side; None: as it is
    length: int | None = None  # positions of a sequence, from its beginning; None: as it is
    batch_size: int | None = None  # samples of one forward pass; None: train.batch_size
    rate: float = 1.0  # factor on the learning rate
    progress: float = 1.0  # of the curriculum, in [0, 1]; 1: the data are as hard as they get
