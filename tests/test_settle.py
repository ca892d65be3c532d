"""Settling (S1): a factor beside the scheduler's, which leaves nothing behind when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_kit import Finished, options, parts, train

from progtrain.errors import ConfigError
from progtrain.run import Phase

SHAPES = options("scheduler")
GROWN = (
    "growth=schedule",
    "growth.stages.deeper.at=4steps",
    "growth.stages.wider.at=14steps",
    "growth.consolidation=2steps",
    "warmup=lr",
    "warmup.length=2steps",
    "train.evaluate_every=6steps",
)


def rates(ended: Finished) -> list[float]:
    return [row["rate"] for row in ended.spy.rows]


@pytest.mark.parametrize("shape", [s for s in SHAPES if s != "reduce_on_plateau"])
def test_the_factor_composes_with_every_scheduler(shape: str, tmp_path: Path) -> None:
    """That one looks at the metric, which another rate changes."""
    chosen = (*GROWN, f"scheduler={shape}")
    plain = train(parts(*chosen), tmp_path / "a", store=False)
    lower = ("settle=lower_rate", "settle.rate=0.3", "settle.length=3steps")
    settled = train(parts(*chosen, *lower), tmp_path / "b", store=False)
    settling = {7, 8, 9, 17, 18, 19}  # after two steps of warmup
    for step, (was, now) in enumerate(zip(rates(plain), rates(settled), strict=True), 1):
        assert now == pytest.approx(was * (0.3 if step in settling else 1.0), rel=1e-6), step


def test_settling_is_a_phase_between_warmup_and_consolidation(tmp_path: Path) -> None:
    lower = ("settle=lower_rate", "settle.length=3steps")
    ended = train(parts(*GROWN, *lower), tmp_path, store=False)
    phases = [row["phase"] for row in ended.spy.rows[4:11]]
    assert phases == [
        Phase.WARMUP,
        *[Phase.SETTLE] * 3,
        *[Phase.CONSOLIDATE] * 2,
        Phase.INTEGRATED,
    ]


@pytest.mark.parametrize("recovery", ["1e-9", "1.0"])
def test_a_cut_ends_with_the_evaluation_that_finds_the_metric_recovered(
    recovery: str, tmp_path: Path
) -> None:
    """val/loss, which a growth of random units raises, and an evaluation every 6 steps."""
    loss = ("train.metric=val/loss", "train.mode=min", "optimizer.lr=1e-4", "warmup=none")
    only = ("growth.stages.wider.at=23steps", "growth.consolidation=0steps", "widen=random")
    first = ("growth.stages.deeper.operator=${widen}", "scheduler=constant")
    until = ("settle=until_recovered", "settle.rate=0.5", "settle.within=50%")
    made = parts(
        *GROWN[:4],
        "train.evaluate_every=6steps",
        *loss,
        *only,
        *first,
        *until,
        f"train.recovery={recovery}",
    )
    ended = train(made, tmp_path, store=False)
    event = ended.run.events[0]
    assert event.metric_before is not None and event.metric_after is not None
    seen = {step for step, rate in enumerate(rates(ended), 1) if rate < 0.99 and step <= 23}
    if recovery == "1e-9":  # any metric will do, but the growth itself does not count
        assert seen == {5, 6} and event.recovered is not None and event.recovered.step == 6
    elif event.recovered is not None:
        assert seen == set(range(5, min(event.recovered.step, 16) + 1))
    else:
        assert seen == set(range(5, 17)), "half of the run after the growth at the latest"


def test_lengths_and_rates_that_do_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"settle.rate must be in \(0, 1\), got 1"):
        parts("settle=lower_rate", "settle.rate=1")
    with pytest.raises(ConfigError, match=r"settle\.within must be longer than 0"):
        parts("settle=until_recovered", "settle.within=0steps")
