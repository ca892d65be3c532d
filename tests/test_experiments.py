"""The recipes of conf/experiment: documented, small enough for a CPU, and they grow as they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONF = Path(__file__).parent.parent / "conf"
RECIPES = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml") if "_gpu" not in p.stem)
GROWTHS = {  # of every recipe: the stages that grow, in order
    "budget_distillation": ["wider", "deeper"],
    "combined_curriculum": ["deeper", "deepest"],
    "fashion_cnn": ["deeper", "wider"],
    "gradual_stacking": ["deeper", "deepest"],
    "late_growth": ["deeper"],
    "middle_stacking": ["deeper", "third", "fourth"],
    "resolution_and_depth": ["deeper", "deepest"],
    "small_on_plateau": ["deeper", "deepest"],
    "tinyshakespeare": ["deeper"],
    "width_doubling": ["wider"],
}
# What is too long for a test: its own data are the user's, here they are embedded ones.
SHORT = {
    "fashion_cnn": ("data=digits", "train.duration=40steps", "train.evaluate_every=20steps"),
    "tinyshakespeare": (
        *("train.duration=40steps", "train.evaluate_every=20steps", "data.bytes=60000"),
    ),
}


def head(name: str) -> str:
    lines = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line[1:].strip() for line in lines if line.startswith("#"))


def test_there_are_six_recipes_at_least_and_each_has_a_larger_one() -> None:
    assert len(RECIPES) >= 6 and set(RECIPES) == set(GROWTHS)
    for name in RECIPES:
        assert f"experiment={name} " in head(f"{name}_gpu") + " ", "what it is a larger one of"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_its_source(name: str) -> None:
    assert re.search(r"arXiv \d{4}\.\d{4,5}", head(name))


def run(tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    """The events of a run of the command."""
    command = [sys.executable, "-m", "progtrain", *words, "hardware.threads=1"]
    done = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    rows = (tmp_path / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_grows_as_it_says(name: str, tmp_path: Path) -> None:
    short = SHORT.get(name, ())
    events = run(tmp_path, f"experiment={name}", "hardware=cpu", *short)
    assert [e["stage"] for e in events if e["kind"] == "growth"] == GROWTHS[name]
    assert next(e["stop"] for e in events if e["kind"] == "stop") == "DURATION"


@pytest.mark.slow
def test_a_recipe_can_be_changed_like_anything_else(tmp_path: Path) -> None:
    """Also: a stage that is null is none."""
    tiny = ("model.width=16", "growth.start.width=16", "data.bytes=20000", "train.batch_size=8")
    short = ("train.duration=20steps", "train.evaluate_every=10steps", "data.length=16")
    words = ("experiment=late_growth", "growth.stages.deeper.at=50%", "hardware=cpu")
    growth = [e for e in run(tmp_path, *words, *tiny, *short) if e["kind"] == "growth"]
    assert [(e["stage"], e["step"]) for e in growth] == [("deeper", 10)]
