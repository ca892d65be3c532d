"""What the monitors find, in growths that fail on purpose, and that they find nothing in others."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from growth_kit import a_machine, a_model, grow_now, one_thread  # noqa: F401
from growth_kit import train as steps
from injected import GROWING, USELESS, WATCHED, WILD, Rated, exploding
from run_kit import Finished, parts, train

from progtrain.errors import ConfigError
from progtrain.evaluation import evaluate_network
from progtrain.flops import forward_flops, num_params
from progtrain.growth.counterfactual import contribution, measured
from progtrain.growth.counterfactual import parts as pieces
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.monitors.contribution import Contribution, Measured
from progtrain.monitors.instability import scatter
from progtrain.optimizers.adamw import AdamW
from progtrain.recent import Recent
from progtrain.run import Phase, StopReason

STILL = ("growth.stages.deeper.at=35steps", "growth.stages.wider.at=38steps", "optimizer.lr=1e-9")
SLOW = ("monitor=slow", "monitor.slow.patience=2", "train.evaluate_every=2steps")
LOSS = ("train.metric=val/loss", "train.mode=min")


def findings(ended: Finished) -> list[str]:
    return [text for text in ended.spy.found_texts if text.startswith("finding: ")]


# Instability.


def test_an_unstable_growth_is_found_within_a_few_steps(tmp_path: Path) -> None:
    ended = train(exploding(), tmp_path, store=False)
    assert "growth 1 deeper is unstable in the 2 steps after it: loss up to" in findings(ended)[0]
    assert "gradient norm up to" in findings(ended)[0]
    assert len(findings(ended)) == len(ended.run.events) == 2, "each growth is told once"


def test_a_calm_growth_is_not(tmp_path: Path) -> None:
    calm = replace(exploding(), warmup=Rated(1.0))
    assert not findings(train(calm, tmp_path, store=False))


def test_a_monitor_that_only_warns_changes_no_bit(tmp_path: Path) -> None:
    watched = train(exploding(), tmp_path / "a", store=False)
    alone = train(replace(exploding(), monitors={}), tmp_path / "b", store=False)
    assert findings(watched) and not findings(alone)
    for name, bits in alone.spy.digest.items():
        if name.startswith(("model/", "optimizer/", "average/", "clock")):
            assert watched.spy.digest[name] == bits, name


@pytest.mark.parametrize("clip", ["0", "1e3"])
def test_losses_and_gradient_norms_are_kept_for_every_step(clip: str, tmp_path: Path) -> None:
    norms: list[float] = []
    made = parts("growth=none", "monitor=instability", f"train.clip={clip}")
    ended = train(made, tmp_path, store=False)
    recent = ended.run.recent
    assert recent is not None and recent.steps == 40
    losses, norms = recent.between(0, 24)
    assert losses == pytest.approx(ended.spy.losses)
    grads = [p.grad for p in ended.run.model.parameters() if p.grad is not None]
    assert norms[-1] == pytest.approx(float(torch.cat([g.flatten() for g in grads]).norm()))
    assert len(norms) == 24


def test_the_last_steps_are_kept_and_what_was_undone_is_not() -> None:
    recent = Recent.of(4, torch.device("cpu"))
    for step in range(1, 8):
        recent.note(step, torch.tensor(float(step)), torch.tensor(-float(step)))
    assert recent.between(0, 7) == ([4, 5, 6, 7], [-4, -5, -6, -7])
    assert recent.between(4, 6) == ([5, 6], [-5, -6])
    assert recent.resized(2, 7).between(0, 7)[0] == [6, 7]
    assert recent.resized(9, 7).between(0, 7)[0] == [4, 5, 6, 7]
    recent.forget(5, 7)
    assert recent.between(0, 7)[0] == [4, 5]


def test_a_loss_that_falls_has_no_variance() -> None:
    assert scatter([5.0, 4.0, 3.0, 2.0]) == pytest.approx(0)
    assert scatter([1.0, -1.0, 1.0, -1.0]) > 0.5


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ([1.0, float("nan")], "not finite"),
        ([1.0, 1.6], "loss up to"),
        ([1.0, 1.4], ""),
    ],
)
def test_a_loss_that_is_not_finite_is_unstable(after: list[float], told: str) -> None:
    monitor = parts(*WATCHED).monitors["instability"]
    before, norms = [1.0, 1.0, 1.0, float("inf")], [1.0, 1.0, 1.0]
    leaps = list(monitor._leaps((before, norms), (after, [1.0, float("inf")]), False))  # type: ignore[attr-defined]
    assert ("; ".join(leaps) == "") is (told == "") and told in "; ".join(leaps)


# Contribution.


@pytest.mark.parametrize("operator", [WidenRandom(), DeepenRandom()], ids=["wider", "deeper"])
def test_a_contribution_is_the_metric_less_that_without_what_is_new(
    operator: WidenRandom | DeepenRandom,
) -> None:
    machine = a_machine(a_model("mlp_none"), AdamW(lr=1e-2))
    steps(machine, 3)
    event = grow_now(machine, operator)
    steps(machine, 8)
    run, setup = machine.run, machine.setup
    without = copy.deepcopy(run.model)
    event.edit.revert(without)
    wanted = evaluate_network(without, setup, setup.batches.sets.validation, "val")
    for run.metric in ("val/accuracy", "val/loss"):
        whole = measured(run, setup)
        got = contribution(run, setup, event, whole)
        assert got == pytest.approx(whole - wanted[run.metric], abs=1e-12)
    assert got != 0


def test_each_space_is_measured_alone() -> None:
    machine = a_machine(a_model("mlp_none"), AdamW(lr=1e-2))
    event = grow_now(machine, WidenRandom())
    steps(machine, 4)
    each = pieces(event)
    assert list(each) == ["stem", "blocks.0.linear", "blocks.1.linear"]
    assert sum(len(one.slabs) for one in each.values()) == len(event.slabs)
    run, setup = machine.run, machine.setup
    run.metric, run.mode = "val/loss", "min"
    silent = each["blocks.0.linear"]
    for slab in silent.slabs:
        if slab.consumer:
            slab.write(dict(run.model.named_parameters())[slab.tensor].detach(), 0.0)
    whole = measured(run, setup)
    worths = {name: contribution(run, setup, one, whole) for name, one in each.items()}
    assert worths["blocks.0.linear"] == 0 and worths["stem"] != 0


def contributing(*overrides: str) -> tuple[str, ...]:
    return (*GROWING, "monitor=contribution", "growth.consolidation=0steps", *overrides)


def test_a_growth_that_brings_nothing_is_named_and_stored(tmp_path: Path) -> None:
    made = replace(parts(*contributing()), warmup=USELESS)
    ended = train(made, tmp_path, store=False)
    assert (
        "growth 1 deeper brought nothing: it contributes +0 to val/accuracy" in findings(ended)[0]
    )
    assert "stem +0" in findings(ended)[0]
    assert ended.run.events[0].contribution is not None
    assert "contribution: growth 1 deeper contributes +0 to" in "\n".join(ended.spy.found_texts)


def test_it_is_measured_at_the_integration_and_at_each_distance_after_it(tmp_path: Path) -> None:
    made = replace(parts(*contributing("monitor.contribution.every=10steps")), warmup=USELESS)
    ended = train(made, tmp_path, store=False)
    told = [text for text in ended.spy.found_texts if text.startswith("contribution: growth 1")]
    assert len(told) == 3, "at step 14, 24 and 34"


@pytest.mark.parametrize(("each", "evaluations"), [("false", 2), ("true", 5)])
def test_its_evaluations_are_charged_to_the_clock(
    each: str, evaluations: int, tmp_path: Path
) -> None:
    """The whole, what is new switched off, and where asked for each of three spaces."""
    sizes = ("growth.stages.wider.at=34steps", "growth.start.width=4", "growth.start.depth=2")
    measuring = ("monitor.contribution.every=null", f"monitor.contribution.parts={each}")
    made = replace(parts(*contributing(*sizes, *measuring)), warmup=USELESS)
    watched = train(made, tmp_path / "a", store=False).run
    alone = train(replace(made, monitors={}), tmp_path / "b", store=False).run
    networks = [made.model_factory({"width": width}) for width in (8, 16)]
    assert [num_params(net) for net in networks] == [e.params_after for e in watched.events]
    forward = sum(forward_flops(net, watched.probe.x) for net in networks)
    spent = evaluations * forward * len(made.data.load().validation)
    assert watched.clock.now.flops - alone.clock.now.flops == pytest.approx(spent)


def test_of_copies_that_share_weights_out_it_is_not_defined(tmp_path: Path) -> None:
    made = parts(*contributing("widen=duplicate", "warmup=none", "growth.consolidation=2steps"))
    ended = train(made, tmp_path, store=False)
    told = "the contribution of growth 1 deeper is not defined: it shares weights of the host out"
    assert any(told in text for text in findings(ended))
    assert ended.run.events[0].contribution is None


def test_a_metric_that_has_fallen_is_told(tmp_path: Path) -> None:
    made = replace(parts(*contributing(*LOSS, "optimizer.lr=0.1")), warmup=WILD)
    ended = train(made, tmp_path, store=False)
    assert "val/loss rose from" in findings(ended)[0]


def test_a_metric_that_is_not_of_the_validation_data_is_refused(tmp_path: Path) -> None:
    made = parts("growth=none", "monitor=contribution", "train.metric=train/loss", "train.mode=min")
    with pytest.raises(ConfigError, match=r"monitor=contribution measures on the validation data"):
        train(made, tmp_path, store=False)


# Shock.


def test_a_growth_that_does_not_recover_in_time_is_found(tmp_path: Path) -> None:
    shock = ("monitor=shock", "monitor.shock.within=4steps", "train.evaluate_every=2steps", *LOSS)
    made = parts(*GROWING, *shock, "optimizer.lr=0.1")
    shocked = train(replace(made, warmup=WILD), tmp_path / "a", store=False)
    assert "growth 1 deeper has not recovered within 4steps: val/loss was" in findings(shocked)[0]
    assert len([text for text in findings(shocked) if "growth 1" in text]) == 1
    calm = replace(parts(*GROWING, *shock, "train.recovery=0.5"), warmup=Rated(1.0))
    assert not findings(train(calm, tmp_path / "b", store=False))


# Slow.


def test_a_plateau_with_time_left_is_found_once_and_again_when_it_goes_on(tmp_path: Path) -> None:
    made = parts(*GROWING, *STILL, *SLOW, "monitor.slow.left=0.7")
    ended = train(made, tmp_path, store=False)
    assert len(findings(ended)) == 2, "at steps 6 and 10; at 14 too little of the run is left"
    assert "has not improved on" in findings(ended)[0] and "deeper could grow" in findings(ended)[0]


def test_no_plateau_is_found_where_nothing_can_grow(tmp_path: Path) -> None:
    made = parts("growth=none", "optimizer.lr=1e-9", "model.norm=none", *SLOW)
    assert not findings(train(made, tmp_path, store=False))


def test_growing_now_is_a_remedy_for_it(tmp_path: Path) -> None:
    made = parts(*GROWING, *STILL, *SLOW, "monitor.slow.remedy=grow", "warmup=none")
    ended = train(made, tmp_path, store=False)
    assert [event.moment.step for event in ended.run.events[:1]] == [6]
    assert ended.spy.causes[0].startswith("a monitor asked for it: growing is slow")


def test_a_contribution_up_to_the_threshold_is_too_little(tmp_path: Path) -> None:
    run = train(replace(exploding(), monitors={}), tmp_path, store=False).run
    seen = Measured(replace(run.events[0], metric_before=0.5), metric=0.49, worth=0.01)
    assert not Contribution(threshold=0.0099).findings(run, replace(seen, metric=0.5))
    assert "brought nothing" in Contribution(threshold=0.01).findings(run, seen)[0].told
    assert "fell from 0.5" in Contribution(threshold=0.009).findings(run, seen)[0].told


def test_its_patience_must_be_longer_than_the_triggers(tmp_path: Path) -> None:
    made = parts("growth=plateau", "monitor=slow", "monitor.slow.patience=2")
    with pytest.raises(ConfigError, match=r"must be more than growth\.trigger\.patience=2"):
        train(made, tmp_path, store=False)


# What may not be asked for.


@pytest.mark.parametrize(
    ("monitor", "remedy", "why"),
    [
        ("slow", "rollback", "No growth is to blame"),
        ("instability", "grow", "asks for no other one"),
        ("shock", "restart", "one of warn, adapt, rollback, stop"),
    ],
)
def test_a_remedy_that_a_monitor_cannot_have_is_refused(
    monitor: str, remedy: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=rf"monitor\.{monitor}\.remedy must be") as error:
        parts(f"monitor={monitor}", f"monitor.{monitor}.remedy={remedy}")
    assert why in str(error.value)


def test_a_stopping_monitor_stops_the_run_with_a_reason(tmp_path: Path) -> None:
    ended = train(exploding("monitor.instability.remedy=stop"), tmp_path, store=False).run
    assert ended.stopped is StopReason.MONITOR
    assert ended.clock.step == 10
    assert ended.events[0].phase is Phase.WARMUP


def test_the_way_back_is_open_only_where_something_may_undo(tmp_path: Path) -> None:
    def undoes(*overrides: str) -> bool:
        made = parts(*overrides)
        setup = a_machine(a_model("mlp_none"), AdamW()).setup
        return replace(setup, growth=made.growth, monitors=made.monitors).undoes

    assert not undoes("growth=schedule", "monitor=[shock,instability,contribution]")
    assert undoes("growth=schedule", "monitor=shock", "monitor.shock.remedy=rollback")
    assert undoes("growth=schedule", "growth.keep_if='gain > 0'")
