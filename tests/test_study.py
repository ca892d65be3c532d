"""Studies: what is declared is what runs; what is wrong is refused before anything runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_kit import groups, options

from progtrain.command_line import study
from progtrain.command_line.argv import read
from progtrain.comparison.result import Kind
from progtrain.errors import BusyError, ConfigError
from progtrain.study import file
from progtrain.study.declaration import Arm, Declaration, declared
from progtrain.study.jobs import Job, jobs, left

SMALL: dict[str, Any] = {
    "metric": "val/loss",
    "seeds": [0, 1],
    "arms": {"scratch": {"kind": "baseline", "set": ["growth=none"]}},
}
TINY: dict[str, Any] = {
    "title": "Tiny",
    "metric": "val/loss",
    "seeds": [0, 1],
    "common": [
        *("data=synthetic", "data.samples=128", "data.shape=[1,4,4]", "model=mlp"),
        *("model.width=8", "train.duration=60steps", "train.batch_size=16", "hardware.threads=1"),
        *("train.evaluate_every=10steps", "checkpoint.every=10%", "report.page=false"),
    ],
    "arms": {
        "scratch": {"kind": "baseline", "set": ["growth=none"], "budgets": [0.5]},
        "grown": {"kind": "grown", "set": ["growth=schedule"]},
    },
}


def small(**changed: Any) -> dict[str, Any]:
    return {**SMALL, **changed}


def arm(**changed: Any) -> dict[str, Any]:
    return small(arms={"a": {"kind": "grown", **changed}})


def test_a_grid_and_budgets_expand_to_arms_with_a_name_each() -> None:
    grid = {"warmup": ["none", "lr"], "from": {"low": ["growth.start.depth=1"], "high": []}}
    made = declared(arm(set=["growth=schedule"], grid=grid, budgets=[0.5, 1]), "mine").arms
    assert [(each.name, each.budget) for each in made] == [
        (f"a_{warmup}_{start}_{budget:g}", budget)
        for warmup in ("none", "lr")
        for start in ("low", "high")
        for budget in (0.5, 1)
    ]
    assert made[0].overrides == ("growth=schedule", "warmup=none", "growth.start.depth=1")
    assert made[-1].overrides == ("growth=schedule", "warmup=lr")
    assert {each.kind for each in made} == {Kind.GROWN}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (small(metric=None), "study.metric needs the primary metric"),
        (small(margin=-1), "study.margin must be a number >= 0"),
        (small(seeds=[]), "study.seeds must be a list"),
        (small(seeds=[0, -1]), "study.seeds: a seed is a whole number from 0 .* got -1"),
        (small(seeds=[3, 3]), "names one seed twice"),
        (small(common="growth=none"), "study.common must be a list of settings"),
        (small(arms={}), "study.arms needs arms by name"),
        (small(arm={}), "study.arm is no part of a study.*Did you mean 'arms'"),
        (small(arms={"a/b": {"kind": "grown"}}), "an arm's name becomes a directory"),
        (small(name="../x"), "study.name='../x' becomes a directory"),
        (arm(kind="growing"), "study.arms.a.kind must be one of baseline, fixed, grown"),
        (arm(sets=[]), "study.arms.a.sets is no part of an arm.*Did you mean 'set'"),
        (arm(budgets=[0]), "study.arms.a.budgets must be shares of train.duration above 0"),
        (arm(grid={"warmup": "none"}), "study.arms.a.grid must be lists of values"),
        (arm(grid={"x": ["a b", "a-b"]}), "two arms are called a_a-b"),
    ],
)
def test_a_wrong_declaration_is_refused(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        declared(node, "mine")


def test_all_problems_of_a_declaration_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="3 problems"):
        declared(small(metric=None, seeds=None, arms=None), "mine")


def test_seeds_go_round_so_that_partial_results_are_balanced(tmp_path: Path) -> None:
    listed = jobs([("a", ("x=1", "seed=7")), ("b", ())], [4, 5])
    assert [each.name for each in listed] == ["a/seed_4", "b/seed_4", "a/seed_5", "b/seed_5"]
    assert listed[0].overrides == ("x=1", "seed=4")
    for name, status in (("a/seed_4", "done"), ("b/seed_4", "failed"), ("a/seed_5", "interrupted")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "result.json").write_text(json.dumps({"status": status}))
    assert [each.name for each in left(listed, tmp_path, again=True)] == [
        *("b/seed_4", "a/seed_5", "b/seed_5")
    ]
    assert listed[1] not in left(listed, tmp_path, again=False)


def test_a_question_does_not_change_after_the_first_answer(tmp_path: Path) -> None:
    told = (file.Told("a", "grown", ()),)
    first = file.Study("s", "S", "val/loss", "min", 0.01, (0, 1), told, "progtrain study=s")
    file.write(first, tmp_path)
    assert file.read(tmp_path) == first
    more = replace(first, seeds=(5,), arms=(file.Told("b", "fixed", ()),))
    both = file.merged(first, more, tmp_path)
    assert both.seeds == (0, 1, 5) and {each.name for each in both.arms} == {"a", "b"}
    for other, named in (
        (replace(first, margin=0.5), "study.margin: 0.01 -> 0.5"),
        (replace(first, metric="val/accuracy"), "study.metric: val/loss -> val/accuracy"),
        (replace(first, arms=(file.Told("a", "fixed", ()),)), "arm a: grown -> fixed"),
    ):
        with pytest.raises(ConfigError, match=named):
            file.merged(first, other, tmp_path)


def with_every_option_once(made: Declaration) -> Declaration:
    """As few of its arms as have every option and every setting of all; each takes its time.

    Of a larger version of another study one arm that grows and one that does not.
    """
    kept, seen = list[Arm](), set[str]()
    while left := [each for each in made.arms if _brought(each) - seen]:
        kept.append(max(left, key=lambda each: len(_brought(each) - seen)))
        seen |= _brought(kept[-1])
    if made.name.endswith("_gpu"):
        kept = [next(a for a in kept if (a.kind is Kind.GROWN) is grows) for grows in (True, False)]
    return replace(made, arms=tuple(kept))


def _brought(arm: Arm) -> set[str]:
    """Options of groups, and names of settings: most values are as good as others."""
    told = ((text, text.lstrip("+").partition("=")[0]) for text in arm.overrides)
    return {text if key in groups() else key for text, key in told}


@pytest.mark.slow
@pytest.mark.parametrize("name", options("study"))
def test_a_study_that_ships_composes_and_passes_all_checks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "declared", lambda *given: with_every_option_once(declared(*given)))
    prepared = study._prepared(read([f"study={name}"]))
    assert prepared.study.name == name and len(prepared.study.seeds) >= 5
    assert {each.kind for each in prepared.study.arms} > {"grown"}


@pytest.mark.parametrize("name", options("study"))
def test_a_study_that_ships_is_fair(name: str) -> None:
    """Scratch at four budgets or more, each decayed; a fixed size; five seeds."""
    made = declared(_loaded(name), name)
    budgets = {each.budget for each in made.arms if each.name.startswith("scratch")}
    assert budgets >= {0.35, 0.5, 0.7, 1.0}
    assert len(made.seeds) >= 5 and {each.kind for each in made.arms} == {*Kind}
    head = (study_yaml(name)).read_text(encoding="utf-8")
    assert head.startswith("# ") and f"#   progtrain study={name}\n" in head.replace(" 'data", "\n")


def test_the_page_counts_the_jobs_of_every_study() -> None:
    page = (Path(__file__).parent.parent / "docs" / "studies.md").read_text(encoding="utf-8")
    told = {name: (int(arms), int(seeds)) for name, arms, seeds in
            re.findall(r"^\| `(\w+)` \|.*\| (\d+) × (\d+) \|$", page, re.MULTILINE)}  # fmt: skip
    made = {name: declared(_loaded(name), name) for name in options("study")}
    small = {n: (len(m.arms), len(m.seeds)) for n, m in made.items() if not n.endswith("_gpu")}
    assert told == small


def study_yaml(name: str) -> Path:
    return Path(__file__).parent.parent / "conf" / "study" / f"{name}.yaml"


@cache
def _loaded(name: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(study_yaml(name).parents[1]), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose(f"study/{name}").study)
    return node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the user's with a study in it."""
    (tmp_path / "mine" / "study").mkdir(parents=True)
    told = "# Tiny.\n#   progtrain study=tiny\n" + yaml.safe_dump(TINY)
    (tmp_path / "mine" / "study" / "tiny.yaml").write_text(told, encoding="utf-8")
    return tmp_path


def words(folder: Path, *more: str, place: str = "out") -> list[str]:
    own = ("--config-dir", str(folder / "mine"), "study=tiny")
    return [*own, f"hydra.sweep.dir={folder / place}", *more]


def test_settings_of_the_command_line_are_those_of_every_job(folder: Path) -> None:
    prepared = study._prepared(read(words(folder, "train.duration=40steps", "seed=3,4")))
    assert prepared.study.seeds == (3, 4) and prepared.study.mode == "min"
    lengths = {a.name: t for a in prepared.study.arms for t in a.overrides if "duration" in t}
    assert lengths == {
        "scratch_0.5": "train.duration=20steps",
        "grown": "train.duration=40steps",
    }
    assert all("train.metric=val/loss" in each.overrides for each in prepared.study.arms)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("resume=auto", "leave resume out"),
        ("optimizer.lr=0.1,0.2", "what a study compares is declared in its arms"),
        ("train.metric=val/accuracy", "write study.metric=val/accuracy"),
        ("task=test", "is for one run"),
        ("study.seeds=[0]", "Give the seeds once"),
        ("study.sedes=[0]", "Unknown setting 'study.sedes'"),
        ("study=tine", "Unknown study 'tine'.*Did you mean 'tiny'"),
        ("model.width=0", "model.width must be"),
        ("growth.stages.deeper.at=90%", "arm grown: growth.stages.wider.at must be after"),
    ],
)
def test_a_command_that_makes_it_another_study_is_refused(
    folder: Path, more: str, message: str
) -> None:
    seeds = ["seed=0,1"] if more.startswith("study.seeds") else []
    with pytest.raises(ConfigError, match=message):
        study._prepared(read(words(folder, more, *seeds)))


def test_a_directory_of_other_runs_is_not_taken(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "multirun.yaml").touch()
    with pytest.raises(BusyError, match="holds runs that are no study"):
        study._prepared(read(words(folder)))


def test_a_job_that_another_process_holds_is_running(tmp_path: Path) -> None:
    from progtrain.checkpoint.lock import acquire

    job = Job("a", 0, ())
    with acquire(tmp_path / job.name):
        assert job.status(tmp_path) == "running" and not left([job], tmp_path, again=True)
    assert job.status(tmp_path) == "waiting" and left([job], tmp_path, again=True) == [job]


def test_what_no_run_depends_on_makes_it_no_other_job(tmp_path: Path) -> None:
    from progtrain.command_line.resume import changes

    (tmp_path / "config.yaml").write_text("optimizer: {lr: 0.1}\n", encoding="utf-8")
    later = {"optimizer": {"lr": 0.1}, "compare": {"seed": 3}, "runs": None}
    assert changes(tmp_path, later) == []
    assert changes(tmp_path, {**later, "optimizer": {"lr": 0.2}}) == ["optimizer.lr: 0.1 -> 0.2"]
