"""Candidates that are tried: the best wins, and the run does not notice, but for the cost."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from growth_kit import AtSteps, a_machine, a_model, grow_now, make, one_thread  # noqa: F401
from run_kit import Finished, at_step, config, differences, differing, parts, resume, train

from progtrain.boundary import look
from progtrain.build import build
from progtrain.errors import ConfigError, GrowthError, NothingToGrowError
from progtrain.flops import forward_flops
from progtrain.growth import transaction
from progtrain.growth import trial as module
from progtrain.growth.declared import decline
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.trial import NOT_GROWING, Trial, copied, tried
from progtrain.growth.triggers import When
from progtrain.run import Run, Stage, StopReason
from progtrain.setup import Setup
from progtrain.stepper import trained
from progtrain.warmups.linear_ramp import LinearRamp

DROPOUT = ("model=cnn", "model.width=4", "model.dropout=0.3")  # that random numbers matter
BUDGET = (
    "growth=budget",
    "growth.trigger.interval=6steps",
    "growth.max_params=100000",
    "growth.max_stages=1",
    "train.ema=0.9",
)
TRIAL = ("growth/choice=trial", "growth.choice.steps=3")
SCORED = "val/loss: "


def run(directory: Path, *overrides: str) -> Finished:
    return train(parts(*overrides), directory, store=False)


def scores(text: str) -> dict[str, float]:
    """What a note says of each candidate."""
    inside = text.partition(SCORED)[2].partition(")")[0]
    pairs = [each.rpartition(" ") for each in inside.split(", ")]
    return {name: float(score) for name, _, score in pairs}


def without_cost(words: dict[str, str]) -> dict[str, str]:
    """All of a run's state but what has been spent, and why its stages grew."""
    spent = ("clock", "account", "history/", "event/0/moment", "event/0/since", "event/0/recovered")
    return {k: v for k, v in words.items() if not k.startswith((*spent, "event/0/cause"))}


@pytest.mark.parametrize("warmup", ["zero_init", "cosine_ramp", "frozen_host"])
def test_the_run_goes_on_as_if_the_winner_had_been_grown_directly(
    warmup: str, tmp_path: Path
) -> None:
    tried_ = run(tmp_path / "tried", *DROPOUT, *BUDGET, *TRIAL, f"warmup={warmup}")
    event = tried_.run.events[0]
    options = {"wider": "${widen}", "deeper": "${deepen}"}
    other = next(name for name in options if name != event.stage)
    made = parts(*DROPOUT, *BUDGET, f"warmup={warmup}")
    growth: Any = made.growth
    only = {name: each for name, each in growth.options.items() if name != other}
    direct = train(replace(made, growth=replace(growth, options=only)), tmp_path, store=False)
    assert not differing(without_cost(tried_.spy.digest), without_cost(direct.spy.digest))
    assert tried_.spy.losses == direct.spy.losses
    assert [o.metrics for o in tried_.run.history] == [o.metrics for o in direct.run.history]
    assert tried_.run.clock.now.flops > direct.run.clock.now.flops


def test_the_candidate_with_the_lowest_loss_at_the_end_of_the_trial_grows(tmp_path: Path) -> None:
    """The scores are the losses of runs in which each candidate has grown and trained so long."""
    ended = run(tmp_path / "tried", *DROPOUT, *BUDGET, *TRIAL, "scheduler=constant")
    told = scores(ended.spy.notes[0])
    made = parts(*DROPOUT, *BUDGET, "scheduler=constant", "train.evaluate_every=1steps")
    for name in ("wider", "deeper"):
        growth: Any = made.growth
        alone = replace(growth, options={name: growth.options[name]})
        seen = train(replace(made, growth=alone), tmp_path / name, store=False).run.history
        loss = next(o.metrics["val/loss"] for o in seen if o.moment.step == 9)
        assert told[name] == pytest.approx(loss, rel=1e-3)
    assert ended.run.events[0].stage == min(told, key=lambda name: told[name])
    assert "trial of 3 steps" in ended.spy.causes[0]


def test_a_longer_trial_sees_more(tmp_path: Path) -> None:
    short = run(tmp_path / "short", *DROPOUT, *BUDGET, *TRIAL)
    long = run(tmp_path / "long", *DROPOUT, *BUDGET, TRIAL[0], "growth.choice.steps=9")
    assert scores(short.spy.notes[0]) != scores(long.spy.notes[0])


# By hand: what belongs to a trial.


@dataclass(frozen=True)
class Cannot:
    """An operator that finds nothing."""

    preserves = shares = False

    def propose(self, host: Host) -> Edit:
        raise NothingToGrowError("there is nothing here")


def a_stage(include_none: bool = False, **operators: Any) -> Stage:
    first = next(iter(operators.values()))
    each = {name: Stage(name, operator) for name, operator in operators.items()}
    return Stage("stage", first, "its time", candidates=each, trial=Trial(4, include_none))


def a_trial(stage: Stage, losses: dict[str, float] | None = None) -> tuple[Run, Stage | None, Any]:
    """A run of two steps, and the stage that a trial finds; scores may be given by candidate."""
    machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw"), growth=AtSteps())
    machine.stepper.take(2)
    machine.stepper.controls.lift()
    machine.run.evaluated = 24
    notes: list[str] = []
    reporter: Any = mock.Mock(noted=lambda run, text: notes.append(text))
    setup = replace(machine.setup, reporter=reporter)
    named = losses or {}

    def score(run: Run, setup: Setup, each: Stage | None, *rest: Any) -> tuple[float, float]:
        return named[each.name if each else NOT_GROWING], 0.0

    with mock.patch.object(module, "_score", score if losses else module._score):
        found = tried(machine.run, setup, stage, trained)
    return machine.run, found, notes


def test_the_least_loss_wins_and_the_first_of_equals() -> None:
    stage = a_stage(wider=WidenRandom(), deeper=DeepenRandom())
    for losses, best in (({"wider": 2.0, "deeper": 1.0}, "deeper"), ({"wider": 1.0, "deeper": 1.0}, "wider")):  # fmt: skip  # noqa: E501
        _, found, notes = a_trial(stage, losses)
        assert found is not None and found.name == best
        assert notes == [found.cause]


def test_not_growing_may_win_and_then_the_stage_is_passed_over() -> None:
    stage = a_stage(include_none=True, wider=WidenRandom())
    run, found, notes = a_trial(stage, {"wider": 2.0, NOT_GROWING: 1.0})
    assert found is None and run.memory["growth/passed"] == ["stage"]
    assert notes[0].startswith("Stage stage is passed over: not growing was the best of a trial")
    _, found, _ = a_trial(stage, {"wider": 1.0, NOT_GROWING: 1.0})
    assert found is not None, "where nothing is lost, it grows"


def test_a_candidate_that_cannot_grow_is_left_out_and_all_of_them_are_an_error() -> None:
    _, found, _ = a_trial(a_stage(nothing=Cannot(), deeper=DeepenRandom()))
    assert found is not None and found.name == "deeper"
    with pytest.raises(GrowthError, match="nothing: there is nothing here"):
        a_trial(a_stage(include_none=True, nothing=Cannot()))


def test_one_candidate_alone_is_not_tried() -> None:
    run, found, notes = a_trial(a_stage(wider=WidenRandom()))
    assert found is not None and not notes
    assert run.clock.now.flops == 2 * run.flops * run.batch_size


def test_steps_growths_and_evaluations_of_all_trials_are_charged() -> None:
    run, found, _ = a_trial(a_stage(True, wider=WidenRandom(), deeper=DeepenRandom()))
    assert found is not None
    host, spent = run.flops, run.clock.now.flops - 2 * run.flops * run.batch_size
    grown, forward = list[float](), list[float]()
    for operator in (WidenRandom(), DeepenRandom()):
        machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw"), growth=AtSteps())
        machine._stage = Stage("grown", operator)
        machine._grow()
        grown.append(machine.run.flops)
        forward.append(forward_flops(machine.run.model, run.probe.x))
    trained_ = sum(4 * 16 * flops for flops in (*grown, host))
    still = forward_flops(run.model, run.probe.x)
    looks = 24 * (still + sum(still + 2 * each for each in forward))
    checks = len(run.probe.x) * sum(still + each for each in forward)
    assert spent == trained_ + looks + checks
    assert run.clock.account.flops["growth"] == spent


def test_a_candidate_whose_check_fails_is_charged_for_what_it_took() -> None:
    """Its evaluation and its probe batch: two candidates cost what the one that can grow costs."""
    good, _, _ = a_trial(a_stage(True, wider=WidenRandom()))
    real = transaction._prove

    def prove(run: Run, setup: Setup, grown: Grown, *rest: Any) -> Any:
        if grown.edit.blocks():
            raise GrowthError("broken")
        return real(run, setup, grown, *rest)

    with mock.patch.object(transaction, "_prove", prove):
        run, found, _ = a_trial(a_stage(True, wider=WidenRandom(), deeper=DeepenRandom()))
    assert found is None or found.name == "wider"
    machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw"), growth=AtSteps())
    machine._stage = Stage("grown", DeepenRandom())
    machine._grow()
    deeper = forward_flops(machine.run.model, run.probe.x)
    still = forward_flops(run.model, run.probe.x)
    more = run.clock.now.flops - good.clock.now.flops
    assert more == 24 * still + len(run.probe.x) * (still + deeper)
    assert run.clock.now.seconds > 0 and run.clock.step == 2


def test_the_estimate_of_a_budget_is_what_a_trial_costs(tmp_path: Path) -> None:
    """FLOPs stay within the budget, trials included, and a little more would not have fitted."""
    free = run(tmp_path / "free", *BUDGET, *TRIAL, "growth.choice.include_none=true")
    spent = free.run.clock.now.flops
    assert free.run.events
    for share, grows in ((1.5, True), (0.999, None), (0.9, None)):
        limit = (
            *BUDGET,
            *TRIAL,
            "growth.choice.include_none=true",
            f"growth.max_flops={share * spent}",
        )
        ended = run(tmp_path / str(share), *limit)
        assert ended.run.clock.now.flops <= share * spent
        assert grows is None or bool(ended.run.events) is grows


def test_a_copy_of_a_run_shares_nothing_that_training_changes() -> None:
    machine = a_machine(a_model("cnn"), make("optimizer", "adamw"), growth=AtSteps())
    machine.stepper.take(3)
    run = machine.run
    copy = copied(run)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    moments = {name: run.optimizer.state_of(name)["exp_avg"].clone() for name in run.optimizer.parameters}  # fmt: skip  # noqa: E501
    twin = copied(run)
    trained(copy, machine.setup, 3)
    assert run.clock.step == 3 and copy.clock.step == 6
    assert all(torch.equal(before[n], t) for n, t in run.model.state_dict().items())
    assert all(torch.equal(m, run.optimizer.state_of(n)["exp_avg"]) for n, m in moments.items())
    assert any(not torch.equal(before[n], t) for n, t in copy.model.state_dict().items())
    machine.stepper.controls.lift()
    trained(run, machine.setup, 3)
    trained(twin, machine.setup, 3)
    for other in (copy, twin):
        for name, tensor in run.model.state_dict().items():
            assert torch.equal(tensor, other.model.state_dict()[name]), name


def seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def test_what_lives_while_others_are_tried_does_not_notice() -> None:
    """Its ramp, the history and the memory of the run are as they were, not growing included."""
    recipe, warmup = make("optimizer", "adamw"), LinearRamp("4steps")
    machine = a_machine(a_model("mlp_none"), recipe, warmup, AtSteps())
    grow_now(machine, WidenRandom())
    machine.stepper.take(1)
    look(machine.run, machine.setup, machine.stepper.loss)
    machine.run.memory["known"] = [1]
    run, before = machine.run, copied(machine.run)
    machine.stepper.controls.lift()

    def meddling(run: Run, setup: Setup, steps: int) -> None:
        trained(run, setup, steps)
        look(run, setup, torch.tensor(0.0))
        run.memory["known"].append(2)  # type: ignore[union-attr]

    tried(run, machine.setup, a_stage(True, deeper=DeepenRandom()), meddling)
    assert [event.alpha for event in run.events] == [0.25] and run.events == before.events
    assert run.history == before.history and run.memory["known"] == [1]


@pytest.mark.parametrize("draw", [torch.rand, random.random, np.random.rand])
def test_random_numbers_are_where_they_were(draw: Callable[..., Any]) -> None:
    def restless(run: Run, setup: Setup, steps: int) -> None:
        torch.rand(3)
        random.random()
        np.random.rand()

    machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw"), growth=AtSteps())
    argument = (1,) if draw is torch.rand else ()
    expected = [seeded() or float(draw(*argument)) for _ in range(2)]
    assert expected[0] == expected[1]
    seeded()
    tried(machine.run, machine.setup, a_stage(wider=WidenRandom(), deeper=DeepenRandom()), restless)
    assert float(draw(*argument)) == expected[0]


# In a run.


def test_a_budget_rests_after_not_growing_and_tries_again(tmp_path: Path) -> None:
    """With a rate of 0 no candidate is better than none; a trial is held after every rest."""
    still = ("optimizer.lr=1e-9", "model.norm=none", "growth.choice.include_none=true")
    often = ("growth.trigger.interval=2steps", "growth.choice.steps=1", "warmup=none")
    for embargo, wanted in (("25%", [2, 8, 14, 20]), ("0steps", list(range(2, 24, 2)))):
        real, at = module.decline, list[int]()

        def noted(run: Run, stage: Stage, at: list[int] = at, real: Any = real) -> None:
            at.append(run.clock.step)
            real(run, stage)

        worse = mock.patch.object(module, "_score", lambda r, s, each, *_: (float(bool(each)), 0.0))
        with mock.patch.object(module, "decline", noted), worse:
            ended = run(
                tmp_path / embargo, *BUDGET, *TRIAL, *still, *often, f"growth.embargo={embargo}"
            )
        assert at == wanted and not ended.run.events


def test_a_budget_asks_once_a_step_whatever_its_trigger_says() -> None:
    """A condition goes on to hold; without a rest the machine would try for ever."""
    growth: Any = parts(*BUDGET, *TRIAL, "growth.embargo=0steps").growth
    always = replace(growth, trigger=When("step >= 0"))
    machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw"), growth=always)
    assert isinstance(always.next(machine.run), Stage)
    decline(machine.run, a_stage(wider=WidenRandom()))
    assert always.next(machine.run) is None
    machine.stepper.take(1)
    assert isinstance(always.next(machine.run), Stage)


def test_declared_stages_may_try_candidates(tmp_path: Path) -> None:
    stage = "growth.stages.deeper"
    more = (
        "growth=sequential",
        f"{stage}.when='step >= 4'",
        f"+{stage}.candidates={{other: '${{widen}}'}}",
        f"+{stage}.trial={{_target_: progtrain.growth.trial.Trial, steps: 2}}",
        "growth.stages.wider.when='step >= 12'",
        "growth.consolidation=1steps",
    )
    ended = run(tmp_path / "better", *more)
    told = scores(ended.spy.notes[0])
    assert set(told) == {"deeper", "other"}
    assert [event.stage for event in ended.run.events] == ["deeper", "wider"], "as declared"
    kinds = {type(change).__name__ for change in ended.run.events[0].edit.changes}
    assert kinds == (
        {"WidenSpace"} if min(told, key=told.__getitem__) == "other" else {"InsertBlock"}
    )
    worse = mock.patch.object(module, "_score", lambda r, s, each, *_: (float(bool(each)), 0.0))
    none = (
        f"+{stage}.trial={{_target_: progtrain.growth.trial.Trial, steps: 2, include_none: true}}"
    )
    with worse:
        ended = run(tmp_path / "none", *more[:3], none, *more[4:])
    assert [event.stage for event in ended.run.events] == ["wider"], "the first is passed over"
    assert ended.run.grown_out is StopReason.STAGES_DONE


def test_a_resume_after_a_trial_ends_in_the_same_bits(tmp_path: Path) -> None:
    made = parts(*DROPOUT, *BUDGET, *TRIAL, "growth.choice.include_none=true")
    whole = train(made, tmp_path / "whole")
    for step in (5, 6, 8):
        spy = at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        train(made, tmp_path / str(step), spy)
        assert not differences(whole, resume(made, tmp_path / str(step)))


def test_a_trial_that_is_interrupted_is_held_again(tmp_path: Path) -> None:
    """The signal comes amid the second candidate; nothing of the trial is left."""
    made = parts(*DROPOUT, *BUDGET, *TRIAL)
    whole = train(made, tmp_path / "whole")
    real, calls = module._score, list[int]()

    def score(*args: Any) -> tuple[float, float]:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(*args)

    with mock.patch.object(module, "_score", score):
        stopped = train(made, tmp_path / "run")
    assert stopped.exit_code and not stopped.run.events and len(calls) == 2
    assert not differences(whole, resume(made, tmp_path / "run"))


@pytest.mark.parametrize("steps", ["0", "-1"])
def test_a_trial_of_no_steps_is_refused(steps: str) -> None:
    with pytest.raises(ConfigError, match=r"growth\.choice\.steps must be a whole number >= 1"):
        build(config(*BUDGET, TRIAL[0], f"growth.choice.steps={steps}"))
