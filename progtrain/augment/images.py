"""What augmentations ask of the data."""

from __future__ import annotations

from progtrain.data.sets import Sets
from progtrain.errors import ConfigError


def sides(sets: Sets, what: str) -> tuple[int, int, int]:
    """Channels, height and width of the images; raises `ConfigError` for what are none."""
    shape = tuple(sets.train.x.shape[1:])
    if len(shape) != 3:
        told = "×".join(map(str, shape))
        none = f"{what.partition('=')[0]}=none"
        raise ConfigError(
            f"{what} needs images (channels, height, width); samples of this data set are {told}."
            f" Use {none}."
        )
    return shape
