"""What follows a finding: holds, rollbacks that leave nothing behind, and resumes within them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from growth_kit import AtSteps, a_machine, a_model, one_thread, same, snapshot  # noqa: F401
from injected import GROWING, USELESS, WILD, Finds, Rated, exploding
from run_kit import (
    Finished,
    Spy,
    branch,
    differences,
    digest,
    parts,
    resume,
    train,
)

from progtrain.account import LOST
from progtrain.build import Parts
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.remedies import gentler, smaller, sooner
from progtrain.growth.triggers import Plateau
from progtrain.growth.widen_space import WidenSpace
from progtrain.machine import Machine
from progtrain.optimizers.adamw import AdamW
from progtrain.run import Event, Phase, Run, StopReason
from progtrain.settings import Checkpoints
from progtrain.warmups.linear_ramp import LinearRamp

REMEDIES = ("adapt", "rollback", "stop")


def undone_by_hand(at: Mapping[int, int], *overrides: str, remedy: str = "rollback") -> Parts:
    """Calm growths that are found at the steps of `at`."""
    made = parts(*GROWING, *overrides)
    return replace(made, warmup=Rated(1.0), monitors={"finds": Finds(at, remedy)})


@dataclass
class Digests:
    """The state of a run after chosen steps."""

    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        self.of: dict[int, dict[str, str]] = {}
        self.ways: dict[int, list[int]] = {}

    def spy(self) -> Spy:
        def act(call: str, run: Run) -> None:
            if call == "stepped":
                self.ways[run.clock.step] = sorted(run.ways_back)
                if run.clock.step in self.steps:
                    self.of[run.clock.step] = digest(run)

        return Spy(act)


def state(bits: Mapping[str, str]) -> dict[str, str]:
    """Weights, buffers, optimizer state and the average."""
    return {n: b for n, b in bits.items() if n.startswith(("model/", "optimizer/", "average/"))}


def phases(ended: Finished) -> list[Phase]:
    return [row["phase"] for row in ended.spy.rows]


# Rollback.


def test_after_a_rollback_the_network_is_that_of_before_and_the_clock_goes_on(
    tmp_path: Path,
) -> None:
    seen = Digests((8, 10))
    ended = train(exploding("monitor.instability.remedy=rollback"), tmp_path, seen.spy(), False)
    assert any(name.startswith("average/") for name in seen.of[8])
    assert state(seen.of[8]) == state(seen.of[10])
    event = ended.run.events[0]
    assert (event.moment.step, event.since.step, event.phase) == (8, 10, Phase.ROLLED_BACK)
    assert event.undone.startswith("instability: growth 1 deeper is unstable in the 2 steps")
    spent = 2 * 8 * event.flops_after + event.cost  # and what the monitor has measured
    assert event.lost >= spent and ended.run.clock.now.flops > event.lost
    lost = ended.run.clock.account.flops[LOST]
    assert sum(each.lost for each in ended.run.events) == pytest.approx(lost)
    assert ended.run.clock.step == 40


def test_what_was_undone_waits_for_an_embargo_that_doubles(tmp_path: Path) -> None:
    ended = train(exploding("monitor.instability.remedy=rollback"), tmp_path, store=False)
    assert [event.moment.step for event in ended.run.events] == [8, 14, 24]
    assert all(event.phase is Phase.ROLLED_BACK for event in ended.run.events)
    assert ended.run.params == ended.run.events[0].params_before


def test_the_way_back_closes_when_nothing_can_undo_the_growth_any_more(tmp_path: Path) -> None:
    seen = Digests(())
    made = replace(exploding("monitor.instability.remedy=rollback"), warmup=Rated(1.0))
    train(made, tmp_path, seen.spy(), False)
    open_at = [step for step, ways in seen.ways.items() if ways == [0]]
    assert open_at == [9, 10, 11, 12, 13], "the window is 6 steps"


@pytest.mark.parametrize("warmup", ["none", "cosine_ramp"])
def test_a_growth_without_a_life_can_be_undone_too(warmup: str, tmp_path: Path) -> None:
    seen = Digests((8, 11))
    made = replace(
        parts(*GROWING, f"warmup={warmup}", "growth.consolidation=0steps"),
        monitors={"finds": Finds({11: 0}, "rollback")},
    )
    ended = train(made, tmp_path, seen.spy(), False)
    assert state(seen.of[8]) == state(seen.of[11])
    assert seen.ways[10] == [0] and seen.ways[11] == []
    assert ended.run.events[0].phase is Phase.ROLLED_BACK


def test_a_condition_is_asked_at_once_where_a_growth_has_no_life(tmp_path: Path) -> None:
    never = ("warmup=none", "growth.consolidation=0steps", "growth.keep_if='gain > 2'")
    ended = train(parts(*GROWING, *never), tmp_path, store=False)
    assert ended.run.events and not ended.run.grown and not ended.run.ways_back


def test_a_useless_growth_is_undone_by_a_condition(tmp_path: Path) -> None:
    keep = ("growth.keep_if='contribution > 0'", "growth.consolidation=0steps")
    made = replace(parts(*GROWING, *keep), warmup=USELESS)
    event = train(made, tmp_path, store=False).run.events[0]
    assert event.phase is Phase.ROLLED_BACK and event.since.step == 14
    assert "does not hold (contribution 0)" in event.undone


def test_asking_whether_a_growth_has_paid_is_charged(tmp_path: Path) -> None:
    def flops(name: str, *keep: str) -> float:
        return train(parts(*GROWING, *keep), tmp_path / name, store=False).run.clock.now.flops

    plain = flops("plain")
    gain = flops("gain", "growth.keep_if='gain > -1'") - plain
    both = flops("both", "growth.keep_if='gain > -1 and contribution > -1'") - plain
    assert gain > 0 and both == pytest.approx(2 * gain)


def test_a_useless_growth_is_undone_by_the_monitor_of_contributions(tmp_path: Path) -> None:
    watched = ("monitor=contribution", "monitor.contribution.remedy=rollback")
    made = replace(parts(*GROWING, *watched, "growth.consolidation=0steps"), warmup=USELESS)
    event = train(made, tmp_path, store=False).run.events[0]
    assert event.phase is Phase.ROLLED_BACK and event.since.step == 14
    assert event.undone.startswith("contribution: growth 1 deeper brought nothing")


def overlapping(at: Mapping[int, int]) -> Machine:
    """Two growths that live at once: widths at step 2, blocks at step 4, each with a long ramp."""
    growth = AtSteps({2: WidenRandom(), 4: DeepenRandom()})
    made = a_machine(
        a_model("mlp_none"), AdamW(lr=1e-2), LinearRamp("20steps"), growth, duration="8steps"
    )
    setup = replace(made.setup, monitors={"finds": Finds(at, "rollback")})
    return Machine(made.run, setup)


def followed(machine: Machine) -> dict[int, tuple[list[Event], dict[str, object]]]:
    """Events and tensors after every step."""
    seen: dict[int, tuple[list[Event], dict[str, object]]] = {}
    setup = machine.setup

    def note(run: Run) -> None:
        seen[run.clock.step] = (list(run.events), dict(snapshot(machine)))

    setup.reporter.on_step = note  # type: ignore[attr-defined]
    machine.go()
    return seen


def test_an_older_ramp_goes_on_where_it_was_when_the_younger_growth_is_undone() -> None:
    seen = followed(overlapping({6: 1}))
    assert same(seen[4][1], seen[6][1])  # type: ignore[arg-type]
    older = [seen[step][0][0] for step in (4, 6, 7)]
    assert [event.alpha for event in older] == pytest.approx([2 / 20, 2 / 20, 3 / 20])
    assert seen[6][0][1].phase is Phase.ROLLED_BACK


def test_undoing_the_older_of_two_growths_takes_the_younger_with_it() -> None:
    seen = followed(overlapping({6: 0}))
    assert same(seen[2][1], seen[6][1])  # type: ignore[arg-type]
    older, younger = seen[6][0]
    assert older.undone == "finds: it is step 6"
    assert younger.undone == "it grew after grown, which was rolled back"
    assert older.lost > 0 and younger.lost == 0, "what was spent is counted once"


def test_losses_of_steps_that_were_undone_are_no_measure_for_later_growths(tmp_path: Path) -> None:
    made = exploding("monitor.instability.remedy=rollback", "train.duration=12steps",
                     "growth.stages.wider.at=11steps", "growth.consolidation=0steps",
                     "growth.stages.deeper.at=3steps", "growth.embargo=100%")  # fmt: skip
    made = replace(made, warmup=replace(WILD, length="1steps"))
    ended = train(made, tmp_path, store=False)
    undone = ended.run.events[0]
    recent = ended.run.recent
    assert undone.phase is Phase.ROLLED_BACK and recent is not None
    lost = undone.since.step - undone.moment.step
    assert lost == 2 and len(recent.between(0, 12)[0]) == 12 - lost


# Adapting.


def test_a_growth_is_held_and_its_ramp_goes_on_half_as_fast(tmp_path: Path) -> None:
    ended = train(exploding("monitor.instability.remedy=adapt"), tmp_path, store=False)
    lived = phases(ended)[8:30]
    told = [phase for i, phase in enumerate(lived) if i == 0 or lived[i - 1] is not phase]
    assert told[:4] == [Phase.WARMUP, Phase.HOLD, Phase.WARMUP, Phase.CONSOLIDATE]
    assert lived.count(Phase.HOLD) == 3, "monitor.instability.hold"
    assert lived.count(Phase.WARMUP) == 1 + 8, "found after 2 of 6 steps; the other 4 take 8"
    assert "the ramp of growth 1 waits for 3steps, the rest takes ×2" in ended.spy.notes[0]


def test_growths_to_come_warm_up_longer_and_add_less(tmp_path: Path) -> None:
    ended = train(exploding("monitor.instability.remedy=adapt"), tmp_path, store=False)
    first, second = ended.run.events
    assert (first.stretch, second.stretch) == (2, 4), "its own hold, and that of the second"
    change = second.edit.changes[0]
    assert isinstance(change, WidenSpace) and change.new == 1.5 * change.old
    assert ended.run.memory["remedy/patience"] == 4


def test_a_ramp_that_is_held_keeps_its_alpha(tmp_path: Path) -> None:
    made = parts(
        *GROWING, "warmup=linear_ramp", "warmup.length=10steps", "growth.consolidation=0steps"
    )
    made = replace(made, monitors={"finds": Finds({12: 0}, "adapt")})
    alphas = [row["alpha"] for row in train(made, tmp_path, store=False).spy.rows]
    assert alphas[8:16] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.45])


# Growths to come.


def test_gentler_growths_are_smaller_and_wait_longer() -> None:
    run = a_machine(a_model("mlp_none"), AdamW()).run
    assert gentler(run) == "growths to come: plateau patience ×2, warmup ×2, increment ×0.5"
    assert sooner(run) == "growths to come: plateau patience ×1, threshold ×2"
    assert smaller(WidenRandom(factor=2.0), 0.5) == WidenRandom(factor=1.5)
    assert smaller(WidenRandom(size=20), 0.5) == WidenRandom(size=20)
    assert smaller(DeepenRandom(add=4), 0.5) == DeepenRandom(add=2)
    assert smaller(DeepenRandom(add=1), 0.25) == DeepenRandom(add=1)


def test_a_trigger_asks_for_the_patience_that_remedies_leave_it(tmp_path: Path) -> None:
    ended = train(parts("growth=none", "optimizer.lr=1e-9", "model.norm=none"), tmp_path)
    trigger = Plateau(patience=3, min_delta=10)
    assert trigger.due(ended.run)
    sooner(ended.run)
    assert "for 2 observations" in (trigger.due(ended.run) or "")
    gentler(ended.run)
    gentler(ended.run)
    assert trigger.due(ended.run) is None, "six observations have not been seen"


# Resuming.


RUNS = {
    "hold": (lambda: exploding("monitor.instability.remedy=adapt"), (9, 10, 11, 12, 13, 15)),
    "rollback": (lambda: exploding("monitor.instability.remedy=rollback"), (9, 10, 12, 14, 15)),
    "stop": (lambda: exploding("monitor.instability.remedy=stop"), (9,)),
    "by hand": (lambda: undone_by_hand({12: 0, 33: 1}), (8, 11, 12, 32, 33)),
    "contribution": (
        lambda: replace(
            parts(*GROWING, "monitor=[contribution,shock]", "growth.consolidation=0steps",
                  "monitor.contribution.every=4steps", "train.evaluate_every=3steps"),
            warmup=Rated(1.0),
        ),
        (13, 14, 18),
    ),
    "slow": (
        lambda: parts(*GROWING, "optimizer.lr=1e-9", "warmup=none", "monitor=slow",
                      "monitor.slow.patience=2", "monitor.slow.remedy=grow",
                      "train.evaluate_every=2steps", "growth.stages.deeper.at=27steps"),
        (5, 6, 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run_stopped_around_a_remedy_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    make, stops = RUNS[name]
    made = make()
    whole = train(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / "whole")
    for step in stops:
        resumed = resume(made, branch(whole.directory, step, tmp_path / f"at{step}"))
        assert not differences(whole, resumed), step


def test_a_run_that_a_monitor_stopped_goes_on_without_it(tmp_path: Path) -> None:
    made = exploding("monitor.instability.remedy=stop")
    ended = train(made, tmp_path)
    assert ended.run.stopped is StopReason.MONITOR
    again = resume(made, tmp_path).run
    assert (again.stopped, again.clock.step) == (StopReason.MONITOR, 10)
    on = resume(replace(made, monitors={}), tmp_path).run
    assert (on.stopped, on.clock.step) == (StopReason.DURATION, 40)
