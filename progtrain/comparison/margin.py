"""By how much an arm may be worse and still count as not worse, where nobody has said it.

One standard deviation between seeds of the baseline's largest budget, but never less than a floor,
as few seeds can agree by chance. The floor follows from the metric: 0.002 of shares in [0, 1], and
0.2 % of a loss, in whatever unit the metric tells it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from progtrain.comparison.arms import Group
from progtrain.comparison.result import Kind, Summary

_SHARE = 0.002  # of the scale: of 1 for shares of right answers, of its value for a loss


def chosen(metric: str, mode: str, groups: Sequence[Group]) -> float:
    """The margin in units of the metric; `groups` hold one run at least that has its quality."""
    largest = _largest_baseline(mode, groups)
    every = [s for group in groups if (s := group.summary(lambda run: run.quality)) is not None]
    typical = largest or every[0]
    return max(floor(metric, mode, typical.mean), (largest.std if largest else None) or 0.0)


def floor(metric: str, mode: str, value: float) -> float:
    """The least margin of a metric that is near `value`.

    The loss, bits per byte (a multiple of it) and perplexity (its exponential, so d exp(L) =
    exp(L) dL) of the same runs have floors that say the same.
    """
    if mode == "max":
        return _SHARE * max(1.0, abs(value))  # beyond [0, 1] it is no share: relative as well
    if metric.rpartition("/")[2] == "perplexity" and value > 0:
        return _SHARE * value * abs(math.log(value))
    return _SHARE * abs(value)


def _largest_baseline(mode: str, groups: Sequence[Group]) -> Summary | None:
    """The quality at the baseline's largest budget, of those that have a standard deviation."""
    known = list[tuple[float, Summary]]()
    for group in groups:
        summary = group.summary(lambda run: run.quality)
        sample = group.sample(mode, lambda run: run.flops)
        if group.kind is not Kind.BASELINE or sample is None or summary is None:
            continue
        if summary.std is not None:
            known.append((float(sample.costs.mean()), summary))
    return max(known, key=lambda pair: pair[0])[1] if known else None
