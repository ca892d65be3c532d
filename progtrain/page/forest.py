"""Every arm's difference with its interval, the best on top: a forest plot (Lewis and Clarke 2001).

Four of them: compute saved at equal quality, and the metric at equal FLOPs, seconds and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from progtrain.comparison.result import Arm, Comparison, Difference, Estimate
from progtrain.page.arms import Look, certainty, interval
from progtrain.page.chart import Axis, Chart, Rule, Spot

_MOST = 40  # rows; the table has all


def charts(comparison: Comparison, looks: Sequence[Look]) -> list[tuple[str, Chart]]:
    """Those for which there is something to show, each with the name of its tab."""
    found = [("Compute saved", _saved(comparison, looks))]
    differences: tuple[tuple[str, Callable[[Arm], Difference | None]], ...] = (
        ("flops", lambda arm: arm.at_equal_flops),
        ("seconds", lambda arm: arm.at_equal_seconds),
        ("steps", lambda arm: arm.at_equal_steps),
    )
    for cost, of in differences:
        word = "FLOPs" if cost == "flops" else cost
        found.append((f"Equal {word}", _different(comparison, looks, cost, word, of)))
    return [(name, chart) for name, chart in found if not chart.empty]


def _saved(comparison: Comparison, looks: Sequence[Look]) -> Chart:
    known = [(look, e) for look in looks if (e := look.arm.saving)]
    known.sort(key=lambda pair: -pair[1].value)
    rows = [(look, _hundredfold(e), interval(e, share=True), "") for look, e in known]
    return _chart(
        "forest-saved",
        "Compute saved at equal quality (S_eq)",
        "% of the baseline's FLOPs; right of 0 saves",
        rows,
        (),
    )


def _different(
    comparison: Comparison,
    looks: Sequence[Look],
    cost: str,
    word: str,
    of: Callable[[Arm], Difference | None],
) -> Chart:
    sign = -1.0 if comparison.mode == "max" else 1.0
    known = [(look, d) for look in looks if (d := of(look.arm))]
    known.sort(key=lambda pair: sign * pair[1].estimate.value)
    rows = [(look, d.estimate, interval(d.estimate), certainty(d)) for look, d in known]
    side = "right" if comparison.mode == "max" else "left"
    margin = Rule(-comparison.margin, f"margin ±{comparison.margin:g}", until=comparison.margin)
    return _chart(
        f"forest-{cost}",
        f"{comparison.metric} at equal {word}",
        f"difference of {comparison.metric}; {side} of 0 is better",
        rows,
        (margin,) if comparison.margin > 0 else (),
    )


def _chart(
    name: str,
    title: str,
    label: str,
    rows: Sequence[tuple[Look, Estimate, str, str]],
    shades: tuple[Rule, ...],
) -> Chart:
    shown = rows[:_MOST]
    spots = [
        Spot(
            look.key,
            look.short,
            look.style,
            estimate.value,
            float(index),
            _ends(estimate),
            tip="; ".join(text for text in (f"{look.arm.name}: {told}", p) if text),
            note=told,
        )
        for index, (look, estimate, told, p) in enumerate(shown)
    ]
    names = tuple(look.short for look, *_ in shown)
    cut = f"The best {_MOST} of {len(rows)}; the table has all." if len(rows) > _MOST else ""
    x, y = Axis(label), Axis("", names=names)
    zero = Rule(0.0, "no difference")
    return Chart(name, title, x, y, spots=tuple(spots), rules=(*shades, zero), note=cut)


def _ends(estimate: Estimate) -> tuple[float, float] | None:
    """Of the bar; an end that is not known is left out, and its text says `?`."""
    if estimate.low is None and estimate.high is None:
        return None
    low, high = estimate.low, estimate.high
    return estimate.value if low is None else low, estimate.value if high is None else high


def _hundredfold(estimate: Estimate) -> Estimate:
    low, high = (None if end is None else 100 * end for end in (estimate.low, estimate.high))
    return Estimate(100 * estimate.value, low, high)
