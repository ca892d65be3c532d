"""Hydra's other sweepers and launchers: let through, warned of, right in the table at the end."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_errors import told, warned

from progtrain.command_line import sweepers
from progtrain.errors import ConfigError

ROOT = Path(__file__).parent.parent
TINY = ("data=synthetic", "data.samples=128", "data.shape=[1,4,4]", "model=mlp", "model.width=8",
        "train.duration=8steps", "train.batch_size=32", "hardware.threads=1")  # fmt: skip
STUDY = (
    "hydra/sweeper=optuna",
    "hydra.sweeper.direction=maximize",
    "hydra.sweeper.n_jobs=1",
    "hydra.sweeper.sampler.seed=1",
    "growth=schedule",
    "warmup=none",
    "growth.stages.wider.at=choice(30%,50%,75%)",
    "widen=choice(random,duplicate,zero)",
)


def swept(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "progtrain", "-m", *TINY, *words]
    command.append(f"hydra.sweep.dir={directory}")
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "comparison.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def line(words: tuple[str, ...]) -> str:
    return " ".join(("-m", *TINY, *words))


def test_a_study_is_let_through_and_every_value_of_it_is_checked() -> None:
    assert told(line(STUDY)) == ""
    early = told(line((*STUDY, "growth.stages.wider.at=choice(30%,20%)")))
    assert "growth.stages.wider.at must be after stages.deeper.at=25%" in early
    space = told(line((*STUDY, "optimizer.lr=interval(-1,0.1)")))
    assert "optimizer.lr must be a number > 0 and below 1e6, got -1" in space


@pytest.mark.parametrize("name", ["optuna.samplers.TPESampler", "optuna.samplers.os.system"])
def test_of_optuna_only_samplers_may_be_named(name: str) -> None:
    message = told(line((*STUDY, f"hydra.sweeper.sampler._target_={name}")))
    assert bool(message) == name.endswith("system")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("hydra.sweeper.direction=minimize",),
            "hydra.sweeper.direction=minimize would look for the worst val/accuracy"
            " (train.mode=max): write hydra.sweeper.direction=maximize.",
        ),
        (
            ("train.metric=val/loss", "train.mode=min"),
            "hydra.sweeper.direction=maximize would look for the worst val/loss"
            " (train.mode=min): write hydra.sweeper.direction=minimize.",
        ),
    ],
)
def test_a_study_for_the_worst_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        warned(line((*STUDY, *words)))
    assert str(caught.value) == message


def test_a_store_that_the_installed_packages_cannot_write_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = line((*STUDY, "hydra.sweeper.storage='sqlite:///study.db'"))
    monkeypatch.setattr(sweepers, "version", {"optuna": "2.10.1", "sqlalchemy": "2.1.9"}.get)
    with pytest.raises(ConfigError, match="pip install 'sqlalchemy<2'"):
        warned(command)
    monkeypatch.setattr(sweepers, "version", {"optuna": "2.10.1", "sqlalchemy": "1.4.54"}.get)
    assert warned(command) == ()


def test_jobs_that_ask_for_more_cores_than_there_are_are_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweepers, "cpus", lambda: 4)
    at_once = "-m seed=0,1 hydra/launcher=joblib hydra.launcher.n_jobs={} hardware.threads={}"
    assert warned(at_once.format(2, 2)) == warned(at_once.format(-1, "null")) == ()
    assert warned(at_once.format(-1, 2)) == (
        "4 jobs at once with hardware.threads=2 on 4 cores: they wait for each other. Try"
        " hardware.threads=1, or null: each job then gets its share.",
    )
    local = "-m seed=0,1 hydra/launcher=submitit_local hardware.threads={}"
    assert "Set hardware.threads" in warned(local.format("null"))[0]
    assert warned(local.format(1)) == ()


@pytest.mark.slow
def test_a_study_finds_a_step_and_an_operator_and_goes_on(tmp_path: Path) -> None:
    first = swept(tmp_path / "a", *STUDY, "hydra.sweeper.n_trials=2")
    assert first.returncode == 0, first.stderr
    again = swept(tmp_path / "a", *STUDY, "hydra.sweeper.n_trials=3", "resume=auto")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is done already") == 2
    rows = table(tmp_path / "a")
    assert [row["status"] for row in rows] == ["done"] * 3
    found = (tmp_path / "a" / "optimization_results.yaml").read_text()
    best = max(float(row["metric"]) for row in rows)
    assert f"best_value: {best}" in found and "growth.stages.wider.at" in found


@pytest.mark.slow
def test_jobs_at_once_end_each_with_its_own_status(tmp_path: Path) -> None:
    ran = swept(tmp_path / "a", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
                "optimizer=sgd", "optimizer.lr=0.01,1e5", "model.norm=none")  # fmt: skip
    assert ran.returncode == 1
    status = {row["optimizer.lr"]: row["status"] for row in table(tmp_path / "a")}
    assert status == {"0.01": "done", "100000.0": "failed"}
    assert "job 1 failed: Loss became nan" in ran.stderr + ran.stdout


@pytest.mark.slow
def test_jobs_of_submitit_end_in_the_table(tmp_path: Path) -> None:
    ran = swept(tmp_path / "a", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5",
                "seed=0,1")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert [row["status"] for row in table(tmp_path / "a")] == ["done", "done"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_at_once_may_each_be_several_processes(launcher: str, tmp_path: Path) -> None:
    own = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else ["hydra.launcher.timeout_min=5"]
    ran = swept(tmp_path / "a", f"hydra/launcher={launcher}", *own, "seed=0,1",
                "hardware=ddp", "hardware.devices=2", "hardware.device=cpu")  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert [row["status"] for row in table(tmp_path / "a")] == ["done", "done"]
    assert "2 processes" in ran.stdout or launcher != "joblib"
