"""How the numbers of a comparison came to be, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from progtrain.comparison.result import Comparison
from progtrain.report import units


def sentences(comparison: Comparison) -> Iterator[str]:
    """What a reader must know to doubt the page."""
    better = "more" if comparison.mode == "max" else "less"
    yield (
        f"{comparison.metric} ({better} is better) is what a run reported at its end, never its"
        " best. Runs of an arm differ in nothing but the seed."
    )
    yield (
        "Costs are those of whole runs: growths, trials, teachers, monitors and what was rolled"
        " back are in them."
    )
    yield (
        "Compute saved is S_eq = 1 − C / C_baseline(quality): the share of the FLOPs that a"
        " baseline would need for the same quality, read off the fitted curve."
    )
    margin = units.metric(comparison.margin)
    yield (
        f"Intervals cover {comparison.confidence:.0%}. An arm is called not worse where the far end"
        f" of its interval at equal steps stays within the margin of {margin}."
    )
    yield "p is that of a two-sided t test, corrected for the number of arms by Holm (1979)."
    differences = (
        difference
        for arm in comparison.arms
        for difference in (arm.at_equal_flops, arm.at_equal_seconds, arm.at_equal_steps)
        if difference is not None
    )
    against = dict.fromkeys(each.against for each in differences if each.against)
    if against:
        yield f"Arms are compared with: {'; '.join(against)}."
    if comparison.varying:
        yield f"Arms differ in: {', '.join(comparison.varying)}."
