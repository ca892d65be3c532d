"""Growth before the plateau: what more steps and more parameters are predicted to gain."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest
from growth_kit import AtSteps, a_machine, a_model, an_event, make, one_thread  # noqa: F401
from run_kit import parts, train

from progtrain.clock import Clock, Duration, Moment
from progtrain.errors import ConfigError, SettingError
from progtrain.growth.edits import Edit
from progtrain.growth.proactive import Proactive, decay, exponents, flops_of
from progtrain.run import Observation, Phase, Run, StopReason

STEP = 16e6  # FLOPs of an optimizer step: 16 samples of 1e6


def a_run(*losses: float, duration: str = "1000steps") -> Run:
    """A run that has seen these losses, one every 10 steps."""
    run = a_machine(a_model("mlp_none"), make("optimizer", "sgd"), growth=AtSteps()).run
    run.clock = Clock(Duration.parse(duration, "duration"), 1600)
    run.flops = 1e6
    for i, loss in enumerate(losses, 1):
        run.history.append(Observation(at(10 * i), 0.1 * i, {"val/loss": loss}))
    run.clock.now = at(10 * len(losses))
    return run


def at(step: int) -> Moment:
    return Moment(step, 16 * step, STEP * step, 0.5 * step)


def power_law(exponent: float, count: int = 5) -> list[float]:
    return [3.0 * (STEP * 10 * i) ** -exponent for i in range(1, count + 1)]


def gains(text: str) -> tuple[float, float]:
    """Those of steps and of capacity, as the cause says them."""
    shares = [word for word in text.replace(",", " ").split() if word.endswith("%")]
    return float(shares[1][:-1]) / 100, float(shares[2][:-1]) / 100


def test_the_fit_finds_the_exponent_of_a_power_law() -> None:
    points = [(c, 5.0 * c**-0.3) for c in (1e6, 3e6, 1e7, 5e8)]
    assert decay(points) == pytest.approx(0.3)
    noisy = [(c, loss * exp(noise)) for (c, loss), noise in zip(points, (0.1, -0.1, 0.1, -0.1), strict=True)]  # fmt: skip  # noqa: E501
    assert decay(noisy) == pytest.approx(0.3, abs=0.1)
    assert decay([(1e6, 1.0), (1e6, 2.0)]) == 0.0, "no cost lies between them"


def test_it_is_due_where_capacity_gains_more_and_says_both_numbers() -> None:
    run = a_run(*power_law(0.03))
    cause = Proactive(horizon="10%").due(run)
    assert cause is not None
    steps, capacity = gains(cause)
    # 100 steps beside the 50 so far; 5% of the run is over
    assert steps == pytest.approx(1 - (1 + 100 / 50) ** -0.03, abs=1e-4)
    assert capacity == pytest.approx((1 - 2**-0.076) * 0.95, abs=1e-4)
    assert "exponent 0.076, a prior" in cause


def test_it_is_not_due_while_steps_gain_more() -> None:
    assert Proactive(horizon="10%").due(a_run(*power_law(0.5))) is None
    edge = -log(1 - (1 - 2**-0.076) * 0.95) / log(3)
    assert Proactive(horizon="10%").due(a_run(*power_law(edge * 1.001))) is None
    assert Proactive(horizon="10%").due(a_run(*power_law(edge * 0.999)))


def test_every_setting_moves_the_verdict() -> None:
    run = a_run(*power_law(0.03))
    trigger = Proactive(horizon="10%")
    assert trigger.due(run)
    for changed in ({"horizon": "60%"}, {"ratio": 1.5}, {"exponent": 0.04}, {"window": 6}):
        assert replace(trigger, **changed).due(run) is None, changed
    kinked = a_run(9.0, 8.9, *power_law(0.5, 7)[2:])
    assert replace(trigger, window=3).due(kinked) is None
    flat = a_run(9.0, 5.0, 3.0, 2.0, 2.0, 2.0)
    assert replace(trigger, window=3).due(flat) and replace(trigger, window=6).due(flat) is None


def test_a_loss_that_rises_counts_as_one_that_stands() -> None:
    cause = Proactive(horizon="10%").due(a_run(1.0, 1.1, 1.2, 1.3, 1.4))
    assert cause is not None and gains(cause)[0] == 0.0


def test_the_horizon_ends_with_the_run_and_less_of_it_is_worth_less() -> None:
    run = a_run(*power_law(0.06), duration="60steps")
    cause = Proactive(horizon="100%").due(run)
    assert cause is None, "a sixth of the run is left to use it"
    run = a_run(*power_law(0.001), duration="60steps")
    steps, capacity = gains(Proactive(horizon="100%").due(run) or "")
    assert steps == pytest.approx(1 - (60 / 50) ** -0.001, abs=1e-4)
    assert capacity == pytest.approx((1 - 2**-0.076) / 6, abs=1e-4)


def test_growths_of_the_run_say_their_own_exponent() -> None:
    """Parameters doubled at step 20, integrated at 40; the loss fell from 2 to 1.5 by then."""
    run = a_run(3.0, 2.0, 1.9, 1.5, 1.49, 1.48, 1.47, 1.46, 1.45)
    grown = replace(
        an_event(Edit(())), moment=at(20), since=at(40), params_before=100, params_after=200,
        phase=Phase.INTEGRATED,
    )  # fmt: skip
    run.events[:] = [grown]
    assert exponents(run, "val/loss") == [pytest.approx(log(2.0 / 1.5) / log(2))]
    cause = Proactive(horizon="10%").due(run)
    assert cause is not None and "exponent 0.415, of 1 growths here" in cause
    assert gains(cause)[1] == pytest.approx((1 - 1.5 / 2) * 0.91, abs=1e-4)
    for other in (
        replace(grown, phase=Phase.WARMUP),
        replace(grown, phase=Phase.ROLLED_BACK),
        replace(grown, params_after=100),
        replace(grown, moment=at(5)),  # nothing was seen before it
        replace(grown, since=at(95)),  # nor since its end
    ):
        run.events[:] = [other]
        assert exponents(run, "val/loss") == []


def test_the_window_begins_anew_at_a_growth() -> None:
    run = a_run(*power_law(0.01, 9))
    grown = replace(an_event(Edit(())), moment=at(20), since=at(50), phase=Phase.INTEGRATED)
    run.events[:] = [grown]
    assert Proactive(window=4).due(run) and Proactive(window=5).due(run) is None


@pytest.mark.parametrize(
    ("length", "steps"),
    [("30steps", 30), ("1600samples", 100), ("2epochs", 200), ("10%", 100), ("1.6e8flops", 10)],
)
def test_a_length_costs_what_its_steps_cost(length: str, steps: int) -> None:
    run = a_run(1.0, 1.0)
    assert flops_of(run, Duration.parse(length, "horizon")) == pytest.approx(steps * STEP)


def test_seconds_cost_what_they_have_cost_so_far() -> None:
    run = a_run(1.0, 1.0)
    assert flops_of(run, Duration.parse("5seconds", "horizon")) == pytest.approx(10 * STEP)
    long = a_run(1.0, 1.0, duration="1.6e10flops")
    assert flops_of(long, Duration.parse("10%", "horizon")) == pytest.approx(1.6e9)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("metric", "val/accuracy"),
        ("metric", "los"),
        ("window", 2),
        ("horizon", "0steps"),
        ("horizon", "soon"),
        ("ratio", 1.0),
        ("exponent", 0.0),
    ],
)
def test_what_makes_no_sense_is_refused(setting: str, value: object) -> None:
    with pytest.raises(SettingError, match=setting):
        Proactive(**{setting: value})  # type: ignore[arg-type]


def test_a_loss_that_is_not_logged_is_told(tmp_path: Path) -> None:
    made = parts("growth=proactive", "growth.trigger.metric=val/ema/loss")
    with pytest.raises(ConfigError, match=r"growth\.trigger\.metric must be a logged metric"):
        train(made, tmp_path, store=False)


def test_a_run_grows_before_its_loss_stands_still(tmp_path: Path) -> None:
    """The loss has just been the best so far: no plateau is in sight."""
    often = (
        "data=digits",
        "model.norm=none",
        "train.evaluate_every=5steps",
        "train.duration=400steps",
    )
    made = parts("growth=proactive", "growth.trigger.window=4", "growth.max_stages=1", *often)
    ended = train(made, tmp_path, store=False)
    event = ended.run.events[0]
    seen = [o.metrics["val/loss"] for o in ended.run.history if o.moment.step <= event.moment.step]
    assert seen[-1] == min(seen)
    assert gains(event.cause)[1] > gains(event.cause)[0] > 0
    assert ended.run.grown_out is StopReason.MAX_STAGES
