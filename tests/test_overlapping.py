"""Stages that wait for conditions, one after another or several alive at once."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from growth_kit import (
    AtSteps,
    a_machine,
    a_model,
    a_set_of_text,
    grow_now,
    make,
    one_thread,  # noqa: F401
    reads_text,
)
from growth_kit import (
    train as steps_of,
)
from run_kit import (
    Finished,
    Spy,
    at_step,
    config,
    differences,
    differing,
    parts,
    resume,
    some,
    train,
)

from progtrain.build import build
from progtrain.errors import ConfigError
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.sequential import Conditional, Sequential
from progtrain.growth.triggers import When
from progtrain.limits import fruitless
from progtrain.run import Observation, Phase, Run, StopReason
from progtrain.warmups.frozen_host import FrozenHost
from progtrain.warmups.linear_ramp import LinearRamp

CNN = ("model=cnn", "model.width=4")
BOTH = (  # deeper from step 5, wider from step 9, each for 8 steps
    *CNN,
    "growth=overlapping",
    "growth.consolidation=3steps",
    "growth.stages.deeper.when='step >= 5'",
    "growth.stages.wider.when='step >= 9'",
    "warmup.length=8steps",
)
SEQUENTIAL = ("growth=sequential", "growth.consolidation=2steps", "warmup=none")


def run(directory: Path, *overrides: str, spy: Spy | None = None) -> Finished:
    return train(parts(*overrides), directory, spy, store=False)


def growths(finished: Finished) -> list[tuple[str, int]]:
    return [(event.stage, event.moment.step) for event in finished.run.events]


# One after another.


def test_a_stage_grows_at_the_first_step_at_which_its_condition_holds(tmp_path: Path) -> None:
    ended = run(
        tmp_path,
        *SEQUENTIAL,
        "growth.stages.deeper.when='epoch > 1'",  # 49 samples, 8 a step: after step 7
        "growth.stages.wider.when='val/loss < 1e9 and step >= 12'",
    )
    assert growths(ended) == [("deeper", 7), ("wider", 12)]
    assert ended.spy.causes[0] == "epoch > 1 (epoch 1.143)"
    assert ended.run.grown_out is StopReason.STAGES_DONE


def test_a_stage_waits_until_the_one_before_it_is_complete(tmp_path: Path) -> None:
    """A rest of a stage's own counts for it, that of the policy for the other."""
    always = ("growth.stages.deeper.when='step >= 3'", "growth.stages.wider.when='step >= 0'")
    ended = run(tmp_path, *SEQUENTIAL, *always, "warmup=linear_ramp", "warmup.length=4steps")
    assert growths(ended) == [("deeper", 3), ("wider", 9)]
    longer = "growth.stages.deeper.consolidation=5steps"
    ended = run(tmp_path, *SEQUENTIAL, *always, longer)
    assert growths(ended) == [("deeper", 3), ("wider", 8)]
    phases = [row["phase"] for row in ended.spy.rows]
    assert phases[8:11] == [Phase.CONSOLIDATE, Phase.INTEGRATED, Phase.INTEGRATED]


def test_a_condition_that_never_holds_keeps_its_stage_and_those_behind_it(tmp_path: Path) -> None:
    ended = run(tmp_path, *SEQUENTIAL, "growth.stages.deeper.when='accuracy > 1.5'")
    assert not ended.run.events and ended.run.grown_out is None


def test_a_wrong_condition_is_told_with_its_full_name_and_a_mark() -> None:
    with pytest.raises(ConfigError) as caught:
        build(config(*SEQUENTIAL, "growth.stages.wider.when='los < 1 and acuracy > 0.7'"))
    told = str(caught.value)
    assert told.startswith("growth.stages.wider.when must be a condition")
    assert told.splitlines()[-1].index("^") == 4


def test_a_condition_on_an_average_that_is_not_kept_is_refused_before_training(
    tmp_path: Path,
) -> None:
    asks = "growth.stages.wider.when='val/ema/loss < 1'"
    spy = Spy()
    with pytest.raises(ConfigError, match=r"train\.ema"):
        run(tmp_path, *SEQUENTIAL, asks, spy=spy)
    assert spy.run is None, "the plan has not been made"
    run(tmp_path, *SEQUENTIAL, asks, "train.ema=0.9")


def test_a_plan_shows_every_stage_of_conditions(tmp_path: Path) -> None:
    for policy in ("sequential", "overlapping"):
        ended = run(tmp_path, f"growth={policy}", "growth.stages.wider.when='step > 1000'")
        assert [row.name for row in ended.spy.plan] == ["start", "deeper", "wider"]


def test_any_policy_with_a_trigger_takes_a_condition(tmp_path: Path) -> None:
    for policy in ("plateau", "budget"):
        made = parts(f"growth={policy}", "growth.consolidation=3steps", "warmup=none")
        growth: Any = made.growth
        due = replace(made, growth=replace(growth, trigger=When("step >= 6")))
        ended = train(due, tmp_path / policy, store=False)
        assert growths(ended)[0][1] == 6
    assert growths(ended)


# Several at once.


def test_every_growth_follows_its_own_ramp(tmp_path: Path) -> None:
    ended = run(tmp_path, *BOTH, "warmup=linear_ramp")
    assert growths(ended) == [("deeper", 5), ("wider", 9)]
    for row in ended.spy.rows:
        for stage, begun in (("deeper", 5), ("wider", 9)):
            passed = row["step"] - begun
            alpha = row["living"].get(stage)
            assert (alpha is not None) is (0 < passed < 11), (row["step"], stage)
            if alpha is not None:
                assert alpha == pytest.approx(min(1.0, passed / 8)), (row["step"], stage)


def test_the_gates_on_the_network_are_those_alphas() -> None:
    """Two growths at 0.25 and 0.75: each new part has its own strength in the output."""
    machine = a_machine(a_model("cnn"), make("optimizer", "sgd"), LinearRamp("4steps"), AtSteps())
    grow_now(machine, DeepenRandom())
    steps_of(machine, 2)
    grow_now(machine, WidenRandom())
    steps_of(machine, 1)
    assert [event.alpha for event in machine.run.events] == [0.75, 0.25]
    x, model = machine.run.probe.x, machine.run.model.eval()
    alphas = machine.stepper.controls._alphas
    outputs: list[torch.Tensor] = []
    for first, second in ((0.75, 0.25), (0.75, 0.0), (0.0, 0.25)):
        alphas[0].fill_(first)
        alphas[1].fill_(second)
        outputs.append(model(x).detach())
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize(
    "name", some(["resnet", "cnn", "mlp_layer", "gpt", "tied", "vit", "user"], 3)
)
@pytest.mark.parametrize(
    "order", ["deeper first", "wider first", "wider behind", "twice wider", "twice deeper"]
)
def test_a_growth_changes_nothing_of_what_is_still_ramping(name: str, order: str) -> None:
    """At its own alpha of 0 the network computes what it did, ramps in their middle included."""
    deeper, wider = DeepenRandom(), WidenRandom()
    operators = {
        "deeper first": (deeper, wider),
        "wider first": (wider, deeper),
        "wider behind": (wider, DeepenRandom(place="first")),  # blocks with new units move on
        "twice wider": (wider, wider),
        "twice deeper": (deeper, deeper),
    }[order]
    sets = a_set_of_text() if reads_text(name) else None
    warmup, recipe = LinearRamp("6steps"), make("optimizer", "adamw")
    machine = a_machine(a_model(name), recipe, warmup, AtSteps(), sets)
    grow_now(machine, operators[0])
    steps_of(machine, 3)
    event = grow_now(machine, operators[1])
    assert machine.run.events[0].alpha == 0.5
    assert event.preservation_error < 1e-10
    steps_of(machine, 2)
    assert [round(e.alpha, 3) for e in machine.run.events] == [0.833, 0.333]


def test_rates_of_two_growths_are_their_own(tmp_path: Path) -> None:
    """warmup=lr: new parts learn at a share of the rate that is that of their own ramp."""
    rates: list[dict[int, float]] = []

    def act(call: str, run: Run) -> None:
        if call == "stepped":
            groups = run.optimizer.groups()
            rates.append({g.get("event", -1): g["lr"] / g["base_lr"] for g in groups})

    deeper = ("growth.stages.wider.operator=${deepen}", "deepen.stacks=stages.1.*")
    run(tmp_path, *BOTH, "warmup=lr", "scheduler=constant", *deeper, spy=Spy(act))
    for step, seen in enumerate(rates, 1):
        for index, begun in ((0, 5), (1, 9)):
            if 0 < step - begun < 8:
                assert seen[index] == pytest.approx((step - begun) / 8), step
        assert seen[-1] == 1.0


def test_two_growths_that_freeze_their_hosts_both_learn() -> None:
    """The second comes while the first is isolated: both learn, and the first network does not."""
    recipe = make("optimizer", "sgd")
    machine = a_machine(a_model("cnn"), recipe, FrozenHost("6steps"), AtSteps())
    old = dict(machine.run.model.named_parameters())
    grow_now(machine, DeepenRandom())
    first = {n: p for n, p in machine.run.model.named_parameters() if n not in old}
    steps_of(machine, 2)
    grow_now(machine, DeepenRandom())
    assert [event.phase for event in machine.run.events] == [Phase.ISOLATE] * 2
    before = {n: p.detach().clone() for n, p in machine.run.model.named_parameters()}
    steps_of(machine, 2)
    moved = {n for n, p in machine.run.model.named_parameters() if not torch.equal(before[n], p)}
    blocks = [tuple(f"{b}." for b in event.blocks) for event in machine.run.events]
    assert first and all(any(n.startswith(each) for n in moved) for each in blocks)
    assert all(n.startswith((*blocks[0], *blocks[1])) for n in moved)


def test_the_most_that_may_live_at_once(tmp_path: Path) -> None:
    ended = run(tmp_path, *BOTH, "warmup=linear_ramp", "growth.most=1")
    assert growths(ended) == [("deeper", 5), ("wider", 16)]
    free = run(tmp_path, *BOTH, "warmup=linear_ramp", "growth.most=2")
    assert growths(free) == [("deeper", 5), ("wider", 9)]
    with pytest.raises(ConfigError, match=r"growth\.most must be a whole number >= 1"):
        parts("growth=overlapping", "growth.most=0")


def test_one_at_a_time_is_sequential_to_the_bit(tmp_path: Path) -> None:
    one = run(tmp_path, *BOTH, "warmup=linear_ramp", "growth.most=1")
    sequential = tuple(o.replace("overlapping", "sequential") for o in BOTH)
    other = run(tmp_path, *sequential, "warmup=linear_ramp")
    assert not differing(one.spy.digest, other.spy.digest)


@pytest.mark.parametrize("warmup", ["cosine_ramp", "lr", "frozen_host"])
def test_a_resume_amid_two_growths_ends_in_the_same_bits(warmup: str, tmp_path: Path) -> None:
    length = "isolation" if warmup == "frozen_host" else "length"
    made = parts(*BOTH[:-1], f"warmup={warmup}", f"warmup.{length}=8steps", "train.ema=0.9")
    whole = train(made, tmp_path / "whole")
    alive: list[list[Phase]] = []

    def stop() -> None:
        assert spy.run is not None
        alive.append([event.phase for event in spy.run.living])
        signal.raise_signal(signal.SIGTERM)

    spy = at_step(11, stop)
    train(made, tmp_path / "run", spy)
    assert len(alive[0]) == 2, "both are under way"
    assert not differences(whole, resume(made, tmp_path / "run"))


def test_patience_counts_growths_whose_life_is_over() -> None:
    """One that still ramps has not had its time to improve anything."""
    machine = a_machine(a_model("cnn"), make("optimizer", "sgd"), LinearRamp("4steps"), AtSteps())
    run = machine.run
    for step in range(8):
        if step in (1, 3):
            grow_now(machine, DeepenRandom())
        assert fruitless(run, 1) is (step >= 5), (step, "the first growth ends with step 5")
        assert fruitless(run, 2) is (step >= 7), (step, "the second with step 7")
        steps_of(machine, 1)
        metrics = {"val/accuracy": 0.5}
        run.history.append(Observation(run.clock.now, run.clock.epoch, metrics))


def test_a_growth_that_was_kept_is_kept_when_a_younger_one_is_undone(tmp_path: Path) -> None:
    """The first ends its life and stays; the second is undone, and the first lives once more."""
    ended = run(
        tmp_path,
        *BOTH,
        "warmup=linear_ramp",
        "growth.keep_if='growths == 2 and step < 18'",  # the second ends at step 20
        "growth.embargo=100%",
        "train.duration=36steps",
    )
    first, second = ended.run.events
    assert second.phase is Phase.ROLLED_BACK and second.since.step == 20
    # step 9 was amid its ramp: 4 of its 11 steps were over, and 7 are left after step 20
    assert (first.phase, first.since.step) == (Phase.INTEGRATED, 27)


def test_candidates_may_not_have_the_name_of_their_stage() -> None:
    stage = Conditional("step > 1", WidenRandom(), candidates={"deeper": DeepenRandom()})
    Sequential({"wider": stage})
    with pytest.raises(ValueError, match=r"stages\.deeper\.candidates must be other names"):
        Sequential({"deeper": stage})
