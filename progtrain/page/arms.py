"""How the arms of a comparison look and what is written about each."""

from __future__ import annotations

from dataclasses import dataclass

from progtrain.comparison.result import Arm, Comparison, Difference, Estimate, Kind, Summary
from progtrain.page.chart import COLOURS, DASHES, GREY, INK, MARKERS, Style
from progtrain.page.svg import css, marker
from progtrain.report import units

FEW = 8  # arms that can all have a colour of their own
_SHOWN = 6  # of more, the best few


@dataclass(frozen=True)
class Look:
    """An arm with its key and style."""

    key: str
    arm: Arm
    style: Style

    @property
    def short(self) -> str:
        """The name without the settings' names, for where there is little room."""
        words = self.arm.name.split()
        values = [word.partition("=")[2] or word for word in words]
        return " ".join(values) if all("=" in word for word in words) else self.arm.name

    @property
    def css(self) -> str:
        return css(self.style)

    @property
    def path(self) -> str:
        """Of its marker, for the legend."""
        return marker(self.style)

    @property
    def dash(self) -> str:
        return DASHES[self.style.dash % len(DASHES)]

    @property
    def shown(self) -> bool:
        """Whether it has a colour and its name is written into charts."""
        return self.style.colour != GREY


def looks(comparison: Comparison) -> list[Look]:
    """Every arm, in the order of the comparison; of many, the best few have a colour."""
    arms = comparison.arms
    chosen = range(len(arms)) if len(arms) <= FEW else _best(comparison)
    found: list[Look] = []
    inks = colours = 0
    for index, arm in enumerate(arms):
        style = Style(GREY, 0, index % len(MARKERS))
        if index in chosen and arm.kind is Kind.BASELINE:
            style = Style(INK, inks, 0)
            inks += 1
        elif index in chosen:
            style = Style(colours % COLOURS + 1, colours, colours + 1)
            colours += 1
        found.append(Look(f"a{index}", arm, style))
    return found


def _best(comparison: Comparison) -> set[int]:
    """The best baseline, then the best of all."""
    sign = -1.0 if comparison.mode == "max" else 1.0
    known = [(sign * a.quality.mean, i) for i, a in enumerate(comparison.arms) if a.quality]
    order = [index for _, index in sorted(known)]
    baselines = [i for i in order if comparison.arms[i].kind is Kind.BASELINE][:1]
    grown = [i for i in order if comparison.arms[i].kind is Kind.GROWN][: _SHOWN - 2]
    return {*baselines, *grown, *[i for i in order if i not in grown][:1]}


def tip(look: Look, comparison: Comparison) -> str:
    """What a chart tells of an arm under the pointer."""
    arm = look.arm
    told = [f"{arm.name} ({arm.kind.value})"]
    if arm.quality:
        told.append(f"{comparison.metric} {summary(arm.quality)}")
    if arm.flops:
        told.append(units.flops(arm.flops.mean))
    return " · ".join([*told, arm.verdict] if arm.verdict else told)


def summary(value: Summary | None) -> str:
    """`0.9712 ± 0.0031`."""
    if value is None:
        return units.MISSING
    spread = "" if value.std is None else f" ± {units.metric(value.std)}"
    return units.metric(value.mean) + spread


def interval(estimate: Estimate | None, share: bool = False) -> str:
    """`+0.0120 [+0.0031, +0.0209]`, or in per cent; `?` is an end that nobody knows."""
    if estimate is None:
        return units.MISSING
    ends = estimate.value, estimate.low, estimate.high
    small = max(abs(end) for end in ends if end is not None) < 1e-3
    value, low, high = (
        "?" if end is None else _percent(end) if share else _signed(end, small) for end in ends
    )
    return value if estimate.low is estimate.high is None else f"{value} [{low}, {high}]"


def certainty(difference: Difference | None) -> str:
    """`p 0.013 (Holm 0.026), 5 pairs`."""
    if difference is None or difference.p is None:
        return ""
    corrected = "" if difference.p_holm is None else f" (Holm {difference.p_holm:.2g})"
    pairs = f", {difference.paired} pairs" if difference.paired else ""
    return f"p {difference.p:.2g}{corrected}{pairs}"


def _signed(value: float, small: bool) -> str:
    return (f"{value:+.2e}" if small and value else f"{value:+.4f}").replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:+.0f} %".replace("-", "−")
