"""What the numbers say, in words; and why they say nothing, where they do not."""

from __future__ import annotations

from collections.abc import Sequence

from progtrain.comparison.result import Arm, Difference, Estimate, Kind, Unfair

_NOT = "not distinguishable from training from scratch"
_GRAVE = ("undecayed", "uncharged", "data_order", "different_metric", "failed_runs")


def word(metric: str) -> str:
    """What is equal: `loss` for val/loss, `bits per byte` for val/bits_per_byte."""
    return metric.rpartition("/")[2].replace("_", " ") or "quality"


def percent(share: float) -> str:
    """A share as whole percent, without the sign of a zero."""
    return f"{round(100 * share) or 0}"


def bracket(estimate: Estimate, scale: float = 100.0) -> str:
    """`[11, 34]`; an end that is not known is `?`; empty where none is."""
    if estimate.low is None and estimate.high is None:
        return ""
    ends = ("?" if e is None else f"{round(scale * e) or 0}" for e in (estimate.low, estimate.high))
    return f"[{', '.join(ends)}]"


def more(saved: Estimate) -> Estimate:
    """The share that is spent more, C / C_frontier - 1, where S_eq is not positive: -S_eq."""
    return Estimate(
        -saved.value,
        None if saved.high is None else -saved.high,
        None if saved.low is None else -saved.low,
    )


def of_saving(saved: Estimate, metric: str, reference: str = "") -> str:
    """S_eq in words: a saving, a cost, no difference, or a number that proves nothing."""
    equal = f"at equal {word(metric)}{reference}"
    if saved.low is None and saved.high is None:
        return f"S_eq {percent(saved.value)} % {equal}, without an interval: it proves nothing"
    if saved.low is not None and saved.low > 0:
        return f"saves {percent(saved.value)} % {bracket(saved)} of the compute {equal}"
    if saved.high is not None and saved.high < 0:
        cost = more(saved)
        return f"costs {percent(cost.value)} % {bracket(cost)} more compute {equal}"
    return f"{_NOT}{reference} (S_eq {percent(saved.value)} % {bracket(saved)})"


def of_arm(arm: Arm, metric: str) -> str:
    """One arm's verdict."""
    if arm.quality is None:
        return "no run came to its end"
    if arm.kind is Kind.BASELINE:
        return "baseline"
    if arm.kind is Kind.FIXED:
        return "another size that never grows"
    if arm.saving is None:
        at = _at_flops(arm.at_equal_flops, metric)
        told = f"no S_eq: {arm.saving_note}{f' {at}' if at else ''}".rstrip(".")
    else:
        told = of_saving(arm.saving, metric)
    return f"{told}{_against_fixed(arm, metric)}"


def _against_fixed(arm: Arm, metric: str) -> str:
    """The best fixed size beside it, as the second half of a sentence."""
    fixed, saved = arm.saving_fixed, arm.saving
    if fixed is None:
        return ""
    if fixed.high is not None and fixed.high < 0:
        worse = saved is not None and saved.high is not None and saved.high < 0
        joined = "and" if worse else "but"
        return f"; {joined} {of_saving(fixed, metric, ' than the best fixed size')}"
    if fixed.low is not None and fixed.low > 0:
        return f"; beats the best fixed size as well (S_eq {_told(fixed)})"
    return f"; against the best fixed size S_eq {_told(fixed)}"


def overall(arms: Sequence[Arm], metric: str, reasons: Sequence[Unfair]) -> str:
    """The sentence that stands above everything."""
    grown = [arm for arm in arms if arm.kind is Kind.GROWN]
    judged = [arm for arm in grown if arm.saving is not None and _bounded(arm.saving)]
    if not grown:
        return "Nothing to judge: no arm grows."
    if not judged:
        why = next((arm.saving_note for arm in grown if arm.saving_note), "")
        told = f"No saving can be told. {_flops_alone(grown)}"
        told += why or "No grown run came to its end."
        return f"{told}{_beside_fixed(grown)}{_care(reasons)}"
    return f"{_counted(judged, metric)}{_beside_fixed(judged)}{_care(reasons)}"


def _flops_alone(grown: Sequence[Arm]) -> str:
    """How many arms differ at equal FLOPs, after the correction; where no S_eq can be read off."""
    known = [d for arm in grown if (d := arm.at_equal_flops) and d.p_holm is not None]
    if not known:
        return ""
    differ = [d.estimate.value for d in known if d.p_holm is not None and d.p_holm < 0.05]
    if not differ:
        return f"At equal FLOPs none of {len(known)} grown arms differs beyond chance. "
    lower = sum(value < 0 for value in differ)
    counted = ((lower, "lower"), (len(differ) - lower, "higher"))
    parts = [f"{what} in {n}" for n, what in counted if n]
    return f"At equal FLOPs the metric is {' and '.join(parts)} of {len(known)} grown arms. "


def _counted(judged: Sequence[Arm], metric: str) -> str:
    """How many arms save, and the best of them."""
    saves = [a for a in judged if a.saving and a.saving.low is not None and a.saving.low > 0]
    costs = [a for a in judged if a.saving and a.saving.high is not None and a.saving.high < 0]
    count = f"{len(judged)} grown arm{'s' * (len(judged) > 1)}"
    if saves:
        best = max(saves, key=lambda arm: arm.saving.value if arm.saving else 0.0)
        assert best.saving is not None
        told = of_saving(best.saving, metric)
        if len(judged) == 1:
            return f"Growing paid: {best.name} {told}."
        if not _survives(best):
            return (
                f"No saving is shown: {best.name} {told}, but as the best of {len(judged)}"
                f" {_corrected(best)}."
            )
        return (
            f"Growing paid in {len(saves)} of {count}: {best.name} {told}. As the best of"
            f" {len(judged)} {_corrected(best)}."
        )
    if len(costs) == len(judged):
        best = max(costs, key=lambda arm: arm.saving.value if arm.saving else 0.0)
        assert best.saving is not None
        share = f" in any of {count}: even" if len(judged) > 1 else ":"
        return f"Growing did not pay{share} {best.name} {of_saving(best.saving, metric)}."
    if len(judged) == 1:
        return f"No saving is shown: {judged[0].name} is {_NOT}."
    lost = f", and {len(costs)} cost more compute" if costs else ""
    return f"No saving is shown: {len(judged) - len(costs)} of {count} are {_NOT}{lost}."


def _survives(best: Arm) -> bool:
    """Whether the difference at equal FLOPs survives the correction for many arms."""
    difference = best.at_equal_flops
    return difference is not None and difference.p_holm is not None and difference.p_holm < 0.05


def _corrected(best: Arm) -> str:
    difference = best.at_equal_flops
    if difference is None or difference.p_holm is None:
        return "no test corrects for that"
    survives = "survives" if _survives(best) else "does not survive"
    return (
        f"its difference at equal FLOPs {survives} the correction for that"
        f" (p = {difference.p_holm:.2g} after Holm)"
    )


def _beside_fixed(judged: Sequence[Arm]) -> str:
    known = [arm.saving_fixed for arm in judged if arm.saving_fixed is not None]
    if not known:
        return " Whether a smaller network that never grows does better is not known."
    won = sum(1 for fixed in known if fixed.low is not None and fixed.low > 0)
    lost = sum(1 for fixed in known if fixed.high is not None and fixed.high < 0)
    if won:
        share = f"{won} of {len(known)} arms save" if len(known) > 1 else "it saves"
        return f" Against the best fixed size {share} compute too."
    if lost == len(known):
        return " But a size that never grows reaches the same with less compute."
    return " Against the best fixed size no saving is shown."


def _care(reasons: Sequence[Unfair]) -> str:
    grave = list(dict.fromkeys(r.what for r in reasons if r.what in _GRAVE))
    return f" Not to be trusted as it is: {', '.join(grave)}." if grave else ""


def _at_flops(difference: Difference | None, metric: str) -> str:
    if difference is None:
        return ""
    estimate = difference.estimate
    known = estimate.low is not None and estimate.high is not None
    ends = f" [{estimate.low:+.3g}, {estimate.high:+.3g}]" if known else ""
    return f"At equal FLOPs its {word(metric)} is {estimate.value:+.3g}{ends}"


def _told(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} % {bracket(estimate)}".strip()


def _bounded(estimate: Estimate) -> bool:
    return estimate.low is not None or estimate.high is not None
