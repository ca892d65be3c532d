"""A recipe's settings of a group go with the option that it chooses there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from run_kit import CONF

from progtrain.cli import run
from progtrain.command_line.argv import read
from progtrain.command_line.session import opened

RECIPES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def composed(*words: str) -> Any:
    command = read(words)
    with opened(command) as session:
        return session.compose(command.overrides)


def alone(group: str, option: str) -> Any:
    return OmegaConf.load(CONF / group / f"{option}.yaml")


@pytest.mark.parametrize("name", RECIPES)
def test_the_baseline_of_a_recipe_is_from_scratch_at_full_size(name: str) -> None:
    baseline, recipe = composed(f"experiment={name}", "growth=none"), composed(f"experiment={name}")
    assert baseline.growth == alone("growth", "none")
    assert baseline.model == recipe.model and baseline.train == recipe.train
    assert recipe.growth != alone("growth", recipe.hydra.runtime.choices.growth)


def test_another_option_is_as_its_yaml_has_it_and_what_is_typed_stays() -> None:
    plateau = composed("experiment=width_doubling", "growth=plateau").growth
    assert plateau.start == alone("growth", "plateau").start
    assert "at" not in plateau.stages.wider
    typed = composed("experiment=width_doubling", "growth=plateau", "growth.start.width=24").growth
    assert typed.start.width == 24 and typed.start.depth == 0.5 and "hidden" not in typed.start
    warmup = composed("experiment=width_doubling", "warmup=cosine_ramp").warmup
    assert warmup == alone("warmup", "cosine_ramp")


def test_the_recipe_s_own_option_named_again_changes_nothing() -> None:
    again = composed("experiment=width_doubling", "growth=schedule", "widen=sparkling")
    assert again.growth == composed("experiment=width_doubling").growth
    assert again.widen.spaces == "*.mlp.up"


def test_a_multirun_compares_a_recipe_with_its_baseline(tmp_path: Path) -> None:
    tiny = ("data.length=16", "data.bytes=20000", "train.duration=4steps", "model.width=16")
    words = ("-m", "experiment=width_doubling", "growth=none,schedule", "train.batch_size=4")
    more = ("train.evaluate_every=2steps", "hardware.threads=1")
    assert run([*words, *tiny, *more, f"hydra.sweep.dir={tmp_path}"]) == 0
    stored = [OmegaConf.load(tmp_path / str(job) / "config.yaml") for job in (0, 1)]
    assert stored[0].growth == alone("growth", "none")
    assert stored[1].growth.start.hidden == 96
