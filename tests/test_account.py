"""Where compute went: every FLOP under one word, and their sum is the clock's."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_kit import parts, train

from progtrain.clock import Clock, Duration, Step, Unit

SCHEDULE = (
    "growth=schedule",
    "growth.consolidation=2steps",
    "growth.stages.deeper.at=4steps",
    "growth.stages.wider.at=13steps",
)
TRIAL = (
    "growth=budget",
    "growth.trigger.interval=6steps",
    "growth.max_params=100000",
    "growth.max_stages=2",
    "growth/choice=trial",
    "growth.choice.steps=3",
)
TAUGHT = (*SCHEDULE, "transfer=progressive", "transfer.length=12steps")
UNDONE = (*SCHEDULE, "growth.keep_if='gain > 2'", "growth.embargo=100%")
RANKED = ("curriculum=difficulty", "curriculum/score=loss", "curriculum.score.steps=3")
LIGO = (*SCHEDULE, "widen=ligo", "widen.steps=3", "warmup=none")
WATCHED = (*SCHEDULE, "monitor=contribution")


def a_clock() -> Clock:
    return Clock(Duration(100, Unit.STEP), 64)


def test_a_sum_of_odd_amounts_is_exact_where_floats_are_not() -> None:
    clock = a_clock()
    for _ in range(10):
        clock.tick(8, 2**53 + 1, 0.5, Step(taught=2**20 + 1, tokens=16))
    clock.charge("growth", 12345.0, 2.0)
    assert sum(clock.account.flops.values()) == clock.now.flops == 10 * (2**53 + 1) + 12345
    assert clock.account.flops["teachers"] == 10 * (2**20 + 1)
    assert clock.account.tokens == 160
    assert sum(clock.account.seconds.values()) == clock.now.seconds == 7.0


def test_evaluations_are_counted_and_not_charged() -> None:
    clock = a_clock()
    clock.charge("evaluation", 500.0, 3.0)
    assert clock.now.flops == 0 and clock.now.seconds == 0
    assert clock.account.flops == {"evaluation": 500} and clock.account.charged == 0


def test_seconds_of_a_step_that_compiles_are_no_training() -> None:
    clock = a_clock()
    clock.tick(8, 100, 5.0, Step(compiled=True))
    clock.tick(8, 100, 1.0)
    assert clock.account.seconds == {"training": 1.0, "compilation": 5.0}
    assert clock.account.flops == {"training": 200}


def test_what_is_given_up_is_lost_once() -> None:
    clock = a_clock()
    clock.tick(8, 100, 0.0)
    outer = clock.account
    clock.charge("growth", 10)
    inner = clock.account
    clock.tick(8, 100, 0.0, Step(taught=40))
    clock.charge("evaluation", 7)
    clock.account = clock.account.given_up(inner)
    assert clock.account.flops == {"training": 100, "growth": 10, "lost": 100, "evaluation": 7}
    clock.tick(8, 30, 0.0)
    clock.account = clock.account.given_up(outer)
    assert clock.account.flops == {"training": 100, "lost": 140, "evaluation": 7}
    assert clock.account.charged == clock.now.flops == 240


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (SCHEDULE, "training"),
        (LIGO, "growth"),
        (TRIAL, "growth"),
        (TAUGHT, "teachers"),
        (UNDONE, "lost"),
        (RANKED, "scores"),
        (WATCHED, "monitors"),
    ],
    ids=["plain", "ligo", "trial", "taught", "undone", "ranked", "watched"],
)
def test_the_words_sum_to_the_clock(overrides: tuple[str, ...], word: str, tmp_path: Path) -> None:
    run = train(parts(*overrides), tmp_path, store=False).run
    account = run.clock.account
    assert account.flops[word] > 0
    assert account.charged == run.clock.now.flops
    assert (
        sum(n for what, n in account.flops.items() if what != "evaluation") == run.clock.now.flops
    )
    charged = [n for w, n in account.seconds.items() if w not in ("evaluation", "storing")]
    assert sum(charged) == pytest.approx(run.clock.now.seconds)
