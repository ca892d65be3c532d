"""What a run says of itself before it starts, and the commands it gives at the end."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from run_kit import parts

from progtrain.data.sets import Batches
from progtrain.report.header import data, header
from progtrain.report.units import assigned
from progtrain.report.words import Heading
from progtrain.start import batches_of, new_run


def said(*overrides: str) -> dict[str, list[str]]:
    """The header of a run, by label."""
    made = parts(*overrides)
    engine = made.hardware.open()
    batches = batches_of(made, engine)
    found: dict[str, list[str]] = {}
    for line in header(new_run(made, engine, batches), batches.sets, made):
        label, _, fact = line.partition(": ")
        found.setdefault(label, []).append(fact)
    return found


def test_a_header_says_what_was_found() -> None:
    told = said("growth=schedule", "train.accumulate=2", "train.duration=3epochs", "seed=4",
                "optimizer.weight_decay=0.1")  # fmt: skip
    assert told["data"] == [
        "49 samples of 1×4×4 to train on, 16 to validate, none to test; 4 classes"
    ]
    (model,) = told["model"]
    assert "parameters in 10 tensors" in model and " at full size" in model and "FLOP" in model
    (optimizer,) = told["optimizer"]
    assert optimizer == (
        "AdamW, 3 tensors with lr 0.003, weight_decay 0.1, betas 0.9 0.99;"
        " 7 tensors with lr 0.003, weight_decay 0, betas 0.9 0.99"
    )
    (training,) = told["training"]
    assert training.startswith("3epochs, 10 steps of 16 samples (3.062 steps an epoch);")
    assert "by val/accuracy (more is better)" in training and training.endswith("seed 4")


def test_several_optimizers_have_a_line_each_and_frozen_parameters_are_counted() -> None:
    told = said("optimizer=muon", "train.freeze=[head.*]", "growth=none")
    assert len(told["optimizer"]) == 2
    assert "at full size" not in told["model"][0]
    assert "steps of" in told["training"][0] and ", 24 steps" not in told["training"][0]


def test_classes_are_named_and_tokens_are_no_classes() -> None:
    made = parts()
    sets: Batches = batches_of(made, made.hardware.open())
    named = replace(sets.sets, classes=("cat", "dog", "eel", "fox"), test=sets.sets.validation)
    assert data(named).endswith("16 to validate, 16 to test; 4 classes (cat, dog, eel, …)")
    text = said("model=gpt", "data=text", "data.length=8", "data.bytes=2000")
    assert "samples of 8 tokens" in text["data"][0] and "classes" not in text["data"][0]


def test_a_screen_leaves_out_what_was_not_chosen() -> None:
    chosen = {"growth": "none", "mix": "none", "model": "cnn"}
    heading = Heading(Path("a"), chosen, ["torch 2, CPU", "data: 3: 4"], "")
    assert heading.chosen == {"growth": "none", "model": "cnn"}
    assert heading.labelled() == (["torch 2, CPU"], [("data", "3: 4")])


@pytest.mark.parametrize(
    "path", ["outputs/a", "a b/c", "it's", "x\\", "x\\'y", "a,b{c}", "$HOME", "a=b", 'q"r', "!1"]
)
def test_a_command_survives_the_shell_and_hydra(path: str) -> None:
    (word,) = shlex.split(assigned("resume", Path(path)))
    assert OverridesParser.create().parse_override(word).value() == path


def test_a_plain_path_needs_no_quotes() -> None:
    assert assigned("resume", Path("outputs/2026-01-02/03-04-05")) == (
        "resume=outputs/2026-01-02/03-04-05"
    )
    assert assigned("resume", Path("my runs/a")) == "\"resume='my runs/a'\""
