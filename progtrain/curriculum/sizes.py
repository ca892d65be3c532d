"""Sizes that grow in equal steps from a start to the full one, and whether a network runs at them.

What `image_size` and `sequence_length` have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor

from progtrain.clock import Duration
from progtrain.curriculum.seen import shaped
from progtrain.curriculum.view import View
from progtrain.errors import ConfigError, require
from progtrain.flops import training_flops
from progtrain.growth.grow import uncompiled
from progtrain.run import Run
from progtrain.settings import whole

_TRIED = 32  # sizes: all of them where there are so few


def check_sizes(start: int | float, multiple: int, length: str) -> None:
    """Raise `SettingError` for what no data set could use."""
    good = (whole(start) and start >= 1) or 0 < start < 1
    require(good, "start", start, "a whole number >= 1, or a share in (0, 1)")
    good = whole(multiple) and multiple >= 1
    require(good, "multiple", multiple, "a whole number >= 1")
    require(Duration.parse(length, "length").value > 0, "length", length, "longer than 0")


def first_size(start: int | float, full: int) -> int:
    """`start` as a size: a share of the full one, rounded."""
    return max(1, round(start * full)) if start < 1 else int(start)


def size_at(first: int, full: int, multiple: int, progress: float) -> int | None:
    """first + k · multiple, k as large as `progress` in [0, 1] allows; None for the full size."""
    if progress >= 1:
        return None
    return first + multiple * floor((full - first) * progress / multiple + 1e-9)


def check_runs(
    run: Run, first: int, full: int, multiple: int, of: Callable[[int], View], advice: str
) -> None:
    """Refuse a start that is not below the full size, and a network that cannot run at a size."""
    if first >= full:
        raise ConfigError(
            f"curriculum.start={first} must be less than the full size of the data, {full}. Try"
            f" curriculum.start={max(1, full // 2)}, or a share such as curriculum.start=0.5."
        )
    sizes = range(first, full, multiple)
    model = uncompiled(run.model)
    for size in sizes[:: max(1, len(sizes) // _TRIED)]:
        x = shaped(run.probe.x, of(size))
        try:
            training_flops(model, x)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            shape = "×".join(map(str, x.shape[1:]))
            raise ConfigError(
                f"curriculum.start={first}: this model cannot run on samples of {shape}, which the"
                f" curriculum comes to ({str(error).splitlines()[0]}). {advice}"
            ) from error
