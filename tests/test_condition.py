"""Conditions: what they mean, and that whatever a user types ends in a sentence with a mark."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from growth_kit import AtSteps, a_machine, a_model, an_event, grow_now, make, one_thread  # noqa: F401
from run_kit import parts, train

from progtrain.clock import Moment
from progtrain.errors import ConfigError, SettingError
from progtrain.growth.condition import NAMES, Condition
from progtrain.growth.edits import Edit
from progtrain.growth.expression_parser import DEEPEST, LONGEST
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.past import last_growth
from progtrain.metrics import canonical, logged, smaller_is_better
from progtrain.run import Observation, Phase, Run


def a_run(*losses: float, **now: float) -> Run:
    """A run that has seen these losses, one an epoch of 100 steps; accuracy is 1 − loss."""
    run = a_machine(a_model("mlp_none"), make("optimizer", "sgd"), growth=AtSteps()).run
    run.clock.epoch_samples = 1600
    for i, loss in enumerate(losses, 1):
        metrics = {"val/loss": loss, "val/accuracy": 1 - loss, "train/loss": loss / 2}
        run.history.append(Observation(Moment(100 * i, 1600 * i), float(i), metrics))
    step = int(now.pop("step", 100 * len(losses)))
    run.clock.now = Moment(step, 16 * step, now.pop("flops", 0.0), now.pop("seconds", 0.0))
    return run


def holds(text: str, run: Run, **extra: float | None) -> bool:
    return Condition.parse(text, "when", tuple(extra)).holds(run, **extra)


TRUE = [
    "step == 300 and epoch == 3 and samples == 4800",
    "flops == 5e9 and seconds == 1.5",
    "fraction == 30%",
    "growths == 0",
    "since_growth == 3",
    "params > 100",
    "val/loss == 0.4 and loss == val/loss",
    "accuracy > 0.55 and val/accuracy < 0.65",
    "train/loss == 0.2",
    "best(loss) == 0.3 and best(accuracy) == 0.7 and best(train/loss) == 0.15",
    "1 + 2 * 3 == 7 and (1 + 2) * 3 == 9 and 7 - 2 - 1 == 4 and 12 / 3 / 2 == 2",
    "-2 * -3 == 6 and - (1 + 1) == -2 and 1 - -1 == 2",
    "loss / 2 == train/loss",
    "1e-3 < .5 and 1e3 == 1000 and 50% == 0.5",
    "not loss > 1",
    "not (loss > 1 or step < 5)",
    "1 > 2 or 1 > 2 or 2 > 1",
    "1 > 2 and 2 > 1 or 2 > 1",
    "2 > 1 or 2 > 1 and 1 > 2",
    "not 1 > 2 and 2 > 1",
    "1 != 2 and 2 <= 2 and 2 >= 2",
    "flat(loss, 1) and not flat(loss, 2)",
    "  loss\n<\t0.5 ",
    "(((loss < 0.5)))",
    "loss<0.5",
    "train/loss<loss",
]


@pytest.mark.parametrize("text", TRUE)
def test_a_condition_means_what_it_says(text: str) -> None:
    run = a_run(0.9, 0.3, 0.4, flops=5e9, seconds=1.5)
    assert holds(text, run)
    assert not holds(f"not ({text})", run)


@pytest.mark.parametrize("word", ["<", "<=", ">", ">=", "==", "!="])
def test_what_has_not_been_observed_makes_no_comparison_true(word: str) -> None:
    run = a_run()
    for text in (f"loss {word} 1", f"1 {word} best(loss)", f"not loss {word} 1"):
        assert not holds(text, run), text
    assert not holds(f"loss + 1 {word} 1 and step == 0", run)
    assert holds(f"loss {word} 1 or step == 0", run)
    assert not holds(f"1 {word} 1 / 0", run), "nothing is divided by 0"


def test_a_list_of_losses_is_flat_once_nothing_beats_the_best() -> None:
    for count, losses in ((2, (3.0, 2.0, 2.0, 2.5)), (3, (3.0, 2.0, 3.0, 2.0, 2.0))):
        assert holds(f"flat(loss, {count})", a_run(*losses))
        assert not holds(f"flat(loss, {count})", a_run(*losses, 1.9))
        assert not holds(f"flat(loss, {count + 1})", a_run(*losses))
        assert holds(f"flat(accuracy, {count})", a_run(*losses)), "more of it is better"
    assert not holds("flat(loss, 1)", a_run(1.0)), "there is no best before the first"


def test_flat_and_since_growth_begin_anew_at_a_growth() -> None:
    machine = a_machine(a_model("mlp_none"), make("optimizer", "sgd"), growth=AtSteps())
    run = machine.run
    run.history[:] = a_run(3.0, 1.0, 2.0, 2.0).history
    run.clock.now = Moment(400, 400 * 16)
    assert holds("flat(loss, 2) and growths == 0", run)
    grow_now(machine, WidenRandom())
    assert not holds("flat(loss, 1)", run) and holds("growths == 1 and since_growth == 0", run)
    metrics = {"val/loss": 1.5}
    for step in (500, 600):
        run.clock.now = Moment(step, step * 16)
        run.history.append(Observation(run.clock.now, 0.0, metrics))
        assert holds("flat(loss, 1)", run), "the best is kept across growths"
        assert holds("flat(loss, 2)", run) is (step == 600)
    assert holds("since_growth > 0 and since_growth < epoch", run)


def test_further_names_stand_where_they_are_declared() -> None:
    assert holds("after - before >= gain * 2", a_run(), before=1.0, after=2.0, gain=0.5)
    assert not holds("gain > 0", a_run(), gain=None)
    with pytest.raises(SettingError, match="Unknown name 'gain'"):
        Condition.parse("gain > 0", "when")


def test_the_cause_gives_the_numbers() -> None:
    condition = Condition.parse("loss < 0.5 and best(loss) > 0 and flat(loss, 1)", "when")
    told = condition.told(a_run(0.3, 0.4))
    assert told == f"{condition.text} (val/loss 0.4, best(val/loss) 0.3)"


# What is wrong: where the mark stands, and what is said.

WRONG = {
    "": (0, "Allowed here"),
    "loss": (0, "a number: compare it"),
    "1 < 2 < 3": (6, "cannot be chained"),
    "val/acuracy > 0.7": (0, "Did you mean 'val/accuracy'?"),
    "epoch > 1 and accuracie < 1": (14, "Did you mean 'accuracy'?"),
    "train/accuracy > 0.5": (0, "Unknown name 'train/accuracy'"),
    "test/loss < 1": (0, "Unknown name"),
    "loss/2 < 1": (0, "A division has spaces"),
    "loss <": (6, "Allowed here: a number"),
    "loss < and": (7, "Allowed here: a number"),
    "loss < 1 and": (12, "Allowed here"),
    "loss < 1)": (8, "Allowed here: a comparison"),
    "(loss < 1": (9, "bracket needs a closing one"),
    "loss = 1": (5, "Is it ==?"),
    "loss < 1; step": (8, "means nothing here"),
    "loss < 3epochs": (8, "Allowed here"),
    "loss < 1e999": (7, "no finite number"),
    "loss and step > 1": (0, "'and' needs a condition"),
    "step > 1 or 2": (12, "'or' needs a condition"),
    "not loss": (4, "'not' needs a condition"),
    "(loss < 1) + 1 > 0": (0, "'+' needs a number"),
    "- (loss < 1)": (2, "'-' needs a number"),
    "(loss < 1) == (step < 1)": (0, "'==' needs a number"),
    "best loss > 1": (5, "best(metric)"),
    "best(step) > 1": (5, "A metric is needed here"),
    "best(loss > 1": (10, "closing bracket"),
    "flat(loss)": (9, "flat(metric, observations)"),
    "flat(loss, 0)": (11, "whole number >= 1"),
    "flat(loss, 1.5)": (11, "whole number >= 1"),
    "flat(loss, step)": (11, "whole number >= 1"),
    "flat(loss, 2": (12, "closing bracket"),
    "flat(los, 2)": (5, "Did you mean"),
    "__import__('os')": (11, "means nothing here"),
    "step.__class__ > 1": (4, "means nothing here"),
    "loss < 1 if step": (9, "Allowed here"),
    "loss ** 2 < 1": (6, "Allowed here"),
    "(" * (DEEPEST + 1) + "loss < 1": (DEEPEST + 1, "brackets within each other"),
    "not " * (DEEPEST + 1) + "loss < 1": (4 * (DEEPEST + 1), "brackets within each other"),
    "1 + " * LONGEST + "1 > 0": (LONGEST, "at most"),
    "löss < 1": (1, "means nothing here"),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mark_stands_under_the_very_character(text: str) -> None:
    at, told = WRONG[text]
    with pytest.raises(SettingError) as caught:
        Condition.parse(text, "when")
    sentence = caught.value.sentence("growth.stages.deeper")
    assert sentence.startswith("growth.stages.deeper.when must be a condition such as")
    assert told in sentence
    *_, shown, mark = sentence.splitlines()
    start = max(0, at - 60)
    assert shown[4:] == text[start : at + 40].rstrip() or shown[4:] == text[start : at + 40]
    assert mark.index("^") == 4 + at - start


@pytest.mark.parametrize("value", [True, 0.7, None, ["loss < 1"], {"loss": 1}])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(SettingError, match="when must be a condition"):
        Condition.parse(value, "when")


PIECES = [*NAMES, *logged(), "loss", "best(", "flat(", "(", ")", ",", "and", "or", "not", "-", "+"]
PIECES += ["*", "/", " / ", "<", "==", ">=", "1", "2.5", "1e-3", "50%", "0", " ", "@", "é", "val/"]


def test_whatever_is_typed_is_read_or_refused_and_never_run() -> None:
    """Random strings of pieces, and good conditions with a character changed."""
    draw = random.Random(0)
    run, read = a_run(0.9, 0.3, 0.4), 0
    texts = [" ".join(draw.choices(PIECES, k=draw.randint(1, 9))) for _ in range(4000)]
    for good in TRUE * 60:
        at = draw.randrange(len(good))
        texts.append(good[:at] + draw.choice(["", "(", ")", "/", "x", ".", "<"]) + good[at + 1 :])
    for text in texts:
        try:
            condition = Condition.parse(text, "when")
        except SettingError:
            continue
        read += 1
        assert isinstance(condition.holds(run), bool) and isinstance(condition.holds(a_run()), bool)
    assert read > 100, "some of them are conditions"


def expression(draw: random.Random, depth: int) -> tuple[str, float]:
    """A random sum and its value, computed beside."""
    if depth == 0 or draw.random() < 0.2:
        number = draw.randint(0, 9)
        return str(number), float(number)
    (a, x), (b, y) = expression(draw, depth - 1), expression(draw, depth - 1)
    sign = draw.choice("+-*")
    return f"({a}) {sign} ({b})", {"+": x + y, "-": x - y, "*": x * y}[sign]


def test_sums_are_computed_as_python_does() -> None:
    draw, run = random.Random(1), a_run()
    for _ in range(200):
        text, number = expression(draw, 3)
        assert holds(f"{text} == {number}".replace("== -", "== - "), run), text
        chain = " ".join(f"{draw.choice('+-*')} {draw.randint(0, 9)}" for _ in range(6))
        assert holds(f"3 {chain} == {eval(f'3 {chain}')}", run), chain


# The list of metrics.


def test_the_known_metrics_are_those_that_evaluations_log(tmp_path: Path) -> None:
    plain = train(parts("growth=none"), tmp_path, store=False).run.history
    assert set(plain[-1].metrics) == {"val/loss", "val/accuracy", "train/loss"}
    more = parts("growth=schedule", "train.ema=0.9", "transfer=distill", "warmup=none")
    seen = train(more, tmp_path, store=False).run.history
    assert {name for each in seen for name in each.metrics} == set(logged())
    assert canonical("val/coarse/loss") == "val/coarse/loss"
    assert smaller_is_better("train/distillation")
    assert smaller_is_better("val/coarse/loss") and not smaller_is_better("val/ema/accuracy")


def test_the_average_is_asked_for_only_where_it_is_kept() -> None:
    run = a_run()
    condition = Condition.parse("val/ema/loss < 1 or step > 5", "when")
    with pytest.raises(ConfigError, match=r"train\.ema"):
        condition.check(run)
    run.average = run.model
    condition.check(run)


def test_a_growth_that_lives_counts_from_when_it_happened_and_another_from_its_end() -> None:
    run = a_run(3.0, 1.0, 2.0, 2.0)
    event = replace(an_event(Edit(())), moment=Moment(150, 2400), since=Moment(350, 5600))
    for phase, since in ((Phase.CONSOLIDATE, 150), (Phase.INTEGRATED, 350)):
        run.events[:] = [replace(event, phase=phase)]
        assert last_growth(run).step == since
        assert holds("flat(loss, 2)", run) is (since == 150)
