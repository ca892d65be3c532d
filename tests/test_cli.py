"""The command itself: directories, resuming, multiruns, exit codes, help, completion.

Training is replaced by a stand-in where only the way to it matters; a few tests start the real
command, because import time and exit codes exist only there.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from progtrain import build, cli, job
from progtrain.checkpoint.lock import acquire
from progtrain.command_line import resume
from progtrain.command_line.argv import Mode, read
from progtrain.command_line.directory import claim
from progtrain.command_line.session import opened
from progtrain.errors import DivergedError, Interrupted, SettingError

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., int]


class StandIn:
    """What was given to `train_job`; raises or calls what a test puts in."""

    def __init__(self) -> None:
        self.calls: list[tuple[build.Parts, Path]] = []
        self.during: Callable[[build.Parts, Path], object] = lambda parts, directory: None

    def __call__(self, parts: build.Parts, directory: Path, held: object = None) -> float:
        self.calls.append((parts, directory))
        self.during(parts, directory)
        saved = directory / "checkpoints" / "step_00000001"
        saved.mkdir(parents=True, exist_ok=True)
        result = {"status": "done", "metric": 0.5, "metric_name": "val/accuracy", "mode": "max"}
        (directory / "result.json").write_text(json.dumps(result))
        return 0.5

    @property
    def parts(self) -> build.Parts:
        return self.calls[-1][0]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(job, "train_job", stand_in)
    return stand_in


@pytest.fixture
def progtrain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command in an empty directory; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["progtrain"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda *argv: cli.run([str(word) for word in argv])


def real(*argv: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "progtrain", *argv]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


# directories


def test_a_run_gets_a_directory_of_its_own(progtrain: Command, training: StandIn) -> None:
    assert progtrain("model=mlp", "seed=3") == 0
    parts, directory = training.calls[0]
    assert directory.is_relative_to(Path.cwd() / "outputs")
    assert parts.seed == 3 and parts.choices["model"] == "mlp" and not parts.resume
    stored = yaml.safe_load((directory / "config.yaml").read_text())
    assert stored == parts.config and stored["model"]["shape"] == [1, 8, 8]
    overrides = yaml.safe_load((directory / ".hydra" / "overrides.yaml").read_text())
    assert overrides == ["model=mlp", "seed=3"]


def test_two_runs_of_one_second_do_not_share_a_directory(tmp_path: Path) -> None:
    wanted = tmp_path / "outputs" / "12-00-00"
    with ThreadPoolExecutor(16) as pool:
        places = list(pool.map(lambda _: claim(wanted), range(64)))
    assert len(set(places)) == 64 and all(place.is_dir() for place in places)
    assert (tmp_path / "outputs" / "12-00-00-64").is_dir()


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    code = "from pathlib import Path; from progtrain.command_line.directory import claim\n"
    code += f"print(*(claim(Path({str(tmp_path / 'x')!r})) for _ in range(50)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    places = [place for process in started for place in process.communicate()[0].split()]
    assert len(places) == len(set(places)) == 150


def test_a_run_of_the_same_second_goes_beside(
    progtrain: Command, training: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progtrain.command_line.session.conf_directory", lambda: _fixed(Path.cwd()))
    monkeypatch.setattr(cli, "conf_directory", lambda: _fixed(Path.cwd()))
    assert progtrain() == progtrain() == 0
    assert [directory.name for _, directory in training.calls] == ["now", "now-2"]


def _fixed(place: Path) -> Path:
    """A copy of conf/ in which time stands still."""
    conf = place / "conf"
    if not conf.exists():
        conf.mkdir()
        for path in (ROOT / "conf").iterdir():
            (conf / path.name).symlink_to(path)
        (conf / "config.yaml").unlink()
        text = (ROOT / "conf" / "config.yaml").read_text()
        wanted = "dir: outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"
        assert wanted in text
        (conf / "config.yaml").write_text(text.replace(wanted, "dir: outputs/now"))
    return conf


def test_a_directory_with_odd_letters_arrives_whole(
    progtrain: Command, training: StandIn, tmp_path: Path
) -> None:
    place = tmp_path / "a b, it's (c)=d"
    assert progtrain(f"hydra.run.dir={resume.quoted(place)}") == 0
    assert training.calls[0][1] == place


def test_39_a_directory_with_a_run_is_not_used_again(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progtrain("hydra.run.dir=a") == 0
    before = (Path("a") / "config.yaml").read_bytes()
    assert progtrain("hydra.run.dir=a", "seed=5") == 6
    assert capsys.readouterr().err.startswith("error: a already holds a run.")
    assert (Path("a") / "config.yaml").read_bytes() == before and len(training.calls) == 1


def test_a_wrong_command_creates_nothing(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in (
        ["modle=mlp"],
        ["train.batch_size=-5", "hydra.run.dir=a"],
        ["-m", "seed=0,-1"],
        ["-m", "seed=0,1", "model=mpl", "hydra.sweep.dir=b"],
        ["model._target_=os.system"],
        ["~growth"],
    ):
        assert progtrain(*argv) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and "Traceback" not in err
    assert list(Path.cwd().iterdir()) == [] and training.calls == []


# parts


def test_values_arrive_in_the_type_of_their_class(progtrain: Command, training: StandIn) -> None:
    assert progtrain("train.batch_size=1e2", "model=mlp", "model.width=16.0") == 0
    assert (training.parts.train.batch_size, training.parts.config["model"]["width"]) == (100, 16)
    assert type(training.parts.config["model"]["width"]) is int


def test_a_share_starts_the_model_small(progtrain: Command, training: StandIn) -> None:
    argv = ["model=mlp", "model.width=64", "model.depth=3", "growth=plateau"]
    assert progtrain(*argv, "growth.start={width: 0.25, depth: 1}") == 0
    made = training.parts.model_factory
    small, full = made(training.parts.growth.start), made({})
    widths = {model: {p.shape[0] for p in model.parameters()} for model in (small, full)}
    assert widths == {small: {16, 10}, full: {64, 10}}
    tiny = made({"width": 1e-9})
    assert {p.shape[0] for p in tiny.parameters()} == {1, 10}


def test_references_between_groups_are_followed(progtrain: Command, training: StandIn) -> None:
    argv = ["growth=plateau", "widen.factor=3", "train.mode=min", "train.metric=val/loss"]
    assert progtrain(*argv) == 0
    growth: Any = training.parts.growth
    assert growth.stages["wider"].factor == 3
    assert (growth.trigger.metric, growth.trigger.mode) == ("val/loss", "min")


def test_a_stage_can_be_added_and_removed(progtrain: Command, training: StandIn) -> None:
    third = "{_target_: progtrain.growth.schedule.At, at: 80%, operator: '${widen}'}"
    argv = ["growth=schedule", f"+growth.stages.third={third}", "~growth.stages.deeper"]
    assert progtrain(*argv) == 0
    growth: Any = training.parts.growth
    assert list(growth.stages) == ["wider", "third"]


def test_no_seed_draws_one_that_is_stored(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progtrain("seed=null") == 0
    assert f"seed={training.parts.seed} (drawn)" in capsys.readouterr().out
    assert training.parts.config["seed"] == training.parts.seed


def test_secrets_are_not_stored(
    progtrain: Command,
    training: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MY_API_KEY", "hush")
    (tmp_path / "mine.yaml").write_text(
        "defaults: [config, _self_]\n"
        "notes: {text: '${oc.env:MY_API_KEY}', hf_token: hush, monkey: 1, tokens: 3}\n"
        "seed: ${notes.tokens}\n"
    )
    assert progtrain("--config-dir", tmp_path, "--config-name", "mine", "hydra.run.dir=a") == 0
    assert "hush" not in Path("a/config.yaml").read_text()
    notes = training.parts.config["notes"]
    assert notes == {"text": "***", "hf_token": "***", "monkey": 1, "tokens": 3}


# classes of the user's


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A directory with a user's model and its YAML."""
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        "_target_: users_own.Net\nshape: ${data.shape}\nwidth: 8\n"
    )
    (tmp_path / "users_own.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, shape, width: int, depth: int = 1):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))\n"
    )
    return tmp_path / "conf"


def test_a_class_of_the_users_needs_its_package_named(
    progtrain: Command, training: StandIn, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progtrain("--config-dir", mine, "model=mine") == 2
    assert "To allow the package: plugins=[users_own]." in capsys.readouterr().err
    assert progtrain("--config-dir", mine, "model=mine", "plugins=[users_own]") == 0
    assert type(training.parts.model_factory({})).__name__ == "Net"
    argv = ["--config-dir", mine, "model=mine", "plugins=[users_own]"]
    assert progtrain(*argv, "model.width=x") == 2
    assert "model.width must be a whole number, got 'x'." in capsys.readouterr().err
    assert progtrain(*argv, "model.depth=2") == 2
    assert "To add it: +model.depth=2" in capsys.readouterr().err
    assert progtrain(*argv, "+model.depth=2") == 0
    assert progtrain(*argv, "+model.detph=2") == 2
    assert "Did you mean 'model.depth'?" in capsys.readouterr().err


def test_a_resume_asks_for_the_package_again(
    progtrain: Command, training: StandIn, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--config-dir", mine, "model=mine", "plugins=[users_own]", "hydra.run.dir=a"]
    assert progtrain(*argv) == 0
    assert progtrain("resume=a") == 2
    assert "To allow the package: plugins=[users_own]." in capsys.readouterr().err
    assert progtrain("resume=a", "plugins=[users_own]") == 0
    assert training.parts.resume


# resuming


def test_a_resume_takes_the_settings_of_the_run(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["model=mlp", "growth=plateau", "train.duration=2epochs"]
    assert progtrain(*first, "hydra.run.dir=a") == 0
    assert progtrain("resume=a", "train.duration=3epochs") == 0
    parts, directory = training.calls[-1]
    assert directory == Path.cwd() / "a" and parts.resume
    assert parts.choices["growth"] == "plateau" and parts.train.duration == "3epochs"
    assert "changed: train.duration: '2epochs' -> '3epochs'" in capsys.readouterr().out
    assert progtrain("resume=true", "hydra.run.dir=a") == 0
    assert training.parts.train.duration == "3epochs"
    assert len(list(Path("a/.hydra").iterdir())) == 3


def test_settings_of_an_option_that_a_resume_leaves_go_with_it(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `resume=a hardware=cpu` does with the devices of several processes."""
    ranked = ["curriculum=difficulty", "curriculum/score=loss", "curriculum.score.steps=3"]
    assert progtrain("scheduler=wsd", "scheduler.decay=30%", *ranked, "hydra.run.dir=a") == 0
    assert progtrain("resume=a", "scheduler=wsd") == 0  # the same option keeps them
    assert training.parts.config["scheduler"]["decay"] == "30%"
    assert progtrain("resume=a", "scheduler=constant", "curriculum=none") == 0
    assert "decay" not in training.parts.config["scheduler"]
    assert "changed: scheduler.decay: '30%' -> null" in capsys.readouterr().out
    assert progtrain("resume=a") == 0  # and they do not come back
    assert training.parts.choices["scheduler"] == "constant"
    assert progtrain("resume=a", "scheduler=wsd", "scheduler.dekay=1", "train.clip=x") == 2
    assert "scheduler.dekay" in capsys.readouterr().err


def test_48_a_resume_does_not_change_the_network(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progtrain("model=mlp", "hydra.run.dir=a") == 0
    stored = Path("a/.hydra/overrides.yaml").read_bytes()
    for change in ("seed=5", "model=cnn", "model.width=7", "+growth.start.width=0.5"):
        assert progtrain("resume=a", change) == 2
        assert "Start a new run for that." in capsys.readouterr().err
    assert Path("a/.hydra/overrides.yaml").read_bytes() == stored and len(training.calls) == 1


def test_auto_starts_then_continues(progtrain: Command, training: StandIn) -> None:
    argv = ["model=mlp", "hydra.run.dir=a", "resume=auto"]
    assert progtrain(*argv) == 0 and not training.parts.resume
    assert progtrain(*argv) == 0 and training.parts.resume


def test_40_a_run_that_goes_on_is_left_alone(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progtrain("model=mlp", "hydra.run.dir=a") == 0
    stored = Path("a/.hydra/overrides.yaml").read_bytes()
    with acquire(Path("a")):
        assert progtrain("resume=a", "train.duration=5epochs") == 6
    assert "in use by pid" in capsys.readouterr().err
    assert Path("a/.hydra/overrides.yaml").read_bytes() == stored


def test_a_multirun_over_options_takes_what_they_have_and_the_default_lacks(
    progtrain: Command, training: StandIn
) -> None:
    """Hydra composes the multirun itself with the default, here wsd."""
    several = ["-m", "scheduler=step,exponential", "scheduler.gamma=0.5", "model=mlp,cnn"]
    assert progtrain(*several, "model.width=8", "hydra.sweep.dir=a") == 0
    told = [parts.config["scheduler"]["gamma"] for parts, _ in training.calls]
    assert told == [0.5] * 4
    assert progtrain("-m", "scheduler=step,cosine", "scheduler.gamma=0.5") == 2


def test_stored_settings_give_way_to_typed_ones() -> None:
    stored = ["model=mlp", "+growth.start.width=0.5", "train.clip=1.0"]
    typed = ["growth.start.width=0.25", "train.clip=2.0", "seed=1"]
    assert resume.merged(stored, typed) == (
        "model=mlp",
        "++growth.start.width=0.25",
        "train.clip=2.0",
        "seed=1",
    )


@pytest.mark.parametrize("text", ["a: &a [x]\nb: *a\n", "{", "- " * 5000, "- 1\n", "a: 1\n"])
def test_a_foreign_list_of_settings_is_refused(
    progtrain: Command, training: StandIn, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a/checkpoints/step_00000001").mkdir(parents=True)
    Path("a/.hydra").mkdir()
    Path("a/.hydra/overrides.yaml").write_text(text)
    assert progtrain("resume=a") == 4
    assert capsys.readouterr().err.startswith("error: ") and training.calls == []


# failures and exit codes


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DivergedError("Loss is nan."), 3, "error: Loss is nan."),
        (SettingError("decay", "1epoch", "a share"), 2, "error: decay must be a share"),
        (Interrupted(15, "Continue with: x"), 143, "Continue with: x"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (RuntimeError("a bug"), 1, "RuntimeError: a bug"),
    ],
)
def test_a_failure_has_its_exit_code_and_one_message(
    progtrain: Command,
    training: StandIn,
    error: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(parts: build.Parts, directory: Path) -> None:
        raise error

    monkeypatch.delenv("PROGTRAIN_DEBUG", raising=False)
    training.during = fail
    assert progtrain("hydra.run.dir=a") == code
    err = capsys.readouterr().err
    assert said in err and err.count(said) == 1
    assert ("Traceback" in err) == (code == 1)
    failed = Path("a/result.json").exists()
    assert failed == (code in (1, 2, 3))


def test_debug_shows_where(
    progtrain: Command,
    training: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROGTRAIN_DEBUG", "1")
    assert progtrain("modle=x") == 2
    assert "Traceback" in capsys.readouterr().err


# multiruns


def test_a_failing_job_does_not_stop_the_others(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(parts: build.Parts, directory: Path) -> None:
        if parts.seed == 1:
            raise DivergedError("Loss is nan.")

    training.during = fail
    assert progtrain("-m", "seed=0,1,2", "hydra.sweep.dir=s") == 1
    assert [parts.seed for parts, _ in training.calls] == [0, 1, 2]
    told = [json.loads(Path(f"s/{n}/result.json").read_text()) for n in range(3)]
    assert [result["status"] for result in told] == ["done", "failed", "done"]
    why = str(DivergedError("Loss is nan."))
    assert told[1]["error"] == why and told[1]["choices"]["model"] == "cnn"
    captured = capsys.readouterr()
    assert f"job 1 failed: {why}" in captured.out
    assert captured.err == f"job 1 failed: {why}\n"


def test_a_failed_job_leaves_no_network_behind(progtrain: Command, training: StandIn) -> None:
    alive: list[weakref.ref[Any]] = []
    counts: list[int] = []

    def fail(parts: build.Parts, directory: Path) -> None:
        counts.append(sum(ref() is not None for ref in alive))
        network = parts.model_factory({})
        alive.append(weakref.ref(network))
        training.calls.clear()
        raise DivergedError("Loss is nan.")

    training.during = fail
    assert progtrain("-m", "seed=0,1,2", "model=mlp", "hydra.sweep.dir=s") == 1
    gc.collect()
    assert counts == [0, 0, 0]


def test_a_multirun_compares_its_jobs(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progtrain("-m", "seed=0,1", "model=mlp") == 0
    assert len({directory.parent for _, directory in training.calls}) == 1
    assert training.calls[0][1].is_relative_to(Path.cwd() / "outputs" / "sweeps")
    assert "job 1: seed=1 model=mlp" in (out := capsys.readouterr().out) and "status" in out


def test_an_interrupt_ends_the_multirun(progtrain: Command, training: StandIn) -> None:
    def stop(parts: build.Parts, directory: Path) -> None:
        raise Interrupted(2, "Continue with: x")

    training.during = stop
    assert progtrain("-m", "seed=0,1", "hydra.sweep.dir=s") == 130
    assert len(training.calls) == 1


def test_a_multirun_goes_on_where_it_ended(
    progtrain: Command, training: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(parts: build.Parts, directory: Path) -> None:
        if parts.seed == 1 and not parts.resume:
            (directory / "checkpoints" / "step_00000001").mkdir(parents=True)
            raise Interrupted(2, "Continue with: x")

    training.during = stop
    argv = ["-m", "seed=0,1,2", "model=mlp", "hydra.sweep.dir=s"]
    assert progtrain(*argv) == 130
    assert progtrain(*argv) == 6
    assert progtrain(*argv, "resume=auto") == 0
    assert [(parts.seed, parts.resume) for parts, _ in training.calls[2:]] == [
        (1, True),
        (2, False),
    ]
    assert "job 0 is done already" in capsys.readouterr().out
    assert progtrain("-m", "seed=3,1,2", "model=mlp", "hydra.sweep.dir=s", "resume=auto") == 1
    assert "s/0 holds another job (seed: 0 -> 3)." in capsys.readouterr().err


# the real command


def test_help_and_config_need_no_torch(tmp_path: Path) -> None:
    for argv in (["--help"], ["--cfg", "job", "model=mlp"], ["modle=mlp"], ["--version"]):
        code = "import sys\nfrom progtrain.cli import run\n"
        code += f"end = run({argv!r})\nassert 'torch' not in sys.modules, 'torch'\nsys.exit(end)"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert ran.returncode == (2 if argv == ["modle=mlp"] else 0), ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_imports_no_plugin_s_library_and_copies_no_configuration(tmp_path: Path) -> None:
    """Held by what is imported and done, not by a clock."""
    code = """
import sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from progtrain.cli import run
def slow(*arguments, **named):
    raise AssertionError("Hydra copies all that it has read for every question of this kind")
ConfigLoaderImpl.get_group_options = slow
end = run(["--help"])
heavy = ("torch", "numpy", "optuna", "sqlalchemy", "joblib", "submitit", "wandb", "mlflow",
         "tensorboard", "torchmetrics", "matplotlib", "pandas", "rich", "sklearn")
print([name for name in heavy if name in sys.modules], file=sys.stderr)
sys.exit(end)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize("more", [[], ["growth=budget"], ["hydra.help.template=$CONFIG"]])
def test_help_is_what_hydra_would_say(more: list[str], tmp_path: Path) -> None:
    code = "import sys\nfrom progtrain import cli\nfrom progtrain.command_line.session import"
    code += f" Session\nSession.help = lambda *_: None\nsys.exit(cli.run({['--help', *more]!r}))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    hydra = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert hydra.returncode == 0 and real("--help", *more, cwd=tmp_path).stdout == hydra.stdout


def test_help_names_the_groups_and_three_commands(tmp_path: Path) -> None:
    ran = real("--help", cwd=tmp_path)
    assert ran.returncode == 0 and ran.stderr == ""
    for text in (
        "growth: budget, combined, none, overlapping, ",
        "progtrain -m ",
        "train.duration=",
    ):
        assert text in ran.stdout


@pytest.mark.parametrize(
    ("line", "offers"),
    [("growth=", "growth=plateau"), ("data=dig", "data=digits"), ("train.dur", "train.duration=")],
)
def test_completion_offers_options_and_settings(tmp_path: Path, line: str, offers: str) -> None:
    typed = f"progtrain {line}"
    ran = real(
        "-sc",
        "query=bash",
        cwd=tmp_path,
        COMP_LINE=typed,
        COMP_POINT=str(len(typed)),
        COMP_CWORD="1",
    )
    assert ran.returncode == 0, ran.stderr
    assert offers in ran.stdout.split()


def unread(*argv: str) -> tuple[int, bytes]:
    """Exit code and errors of a command whose output nobody reads."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "progtrain", *argv]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(command, env=env, stdout=writer, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writer)
    return ran.returncode, ran.stderr


def test_help_may_be_cut_off() -> None:
    assert unread("--help") == (141, b"")


def test_a_run_goes_on_when_nobody_reads_its_lines_any_more(tmp_path: Path) -> None:
    tiny = ("model=mlp", "train.duration=3steps", f"hydra.run.dir={tmp_path}")
    assert unread(*tiny) == (0, b"")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "done"


def test_the_config_of_a_command_is_printed(tmp_path: Path) -> None:
    ran = real("--cfg", "job", "model=mlp", "seed=7", cwd=tmp_path)
    assert ran.returncode == 0
    shown = yaml.safe_load(ran.stdout)
    assert shown["seed"] == 7 and shown["model"]["_target_"] == "progtrain.models.mlp.MLP"


def test_a_wrong_command_ends_with_2_and_one_line(tmp_path: Path) -> None:
    ran = real("model=mpl", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "error: Unknown model 'mpl'. Did you mean 'mlp'?"
        " Available: cnn, gpt, mlp, resnet, torchvision, vit.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_from_start_to_end_and_on(tmp_path: Path) -> None:
    short = ("model=mlp", "data=synthetic", "train.duration=4steps", "hydra.run.dir=a")
    ran = real(*short, "growth=schedule", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "done"
    ran = real("resume=a", "train.duration=6steps", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "a" / "result.json").read_text())["steps"] == 6


# the words


def test_flags_may_stand_anywhere() -> None:
    for argv in (["-m", "a=1", "b=2"], ["a=1", "-m", "b=2"], ["a=1", "b=2", "--multirun"]):
        command = read(argv)
        assert (command.mode, command.overrides) == (Mode.SWEEP, ("a=1", "b=2"))
        assert command.argv == ["--multirun", "a=1", "b=2"]
    assert read(["--cfg", "job", "a=1"]).argv == ["--cfg=job", "a=1"]
    assert read(["a=1", "hydra.mode=MULTIRUN"]).mode is Mode.SWEEP


def test_the_conf_of_the_package_comes_first(tmp_path: Path) -> None:
    from progtrain.command_line.session import conf_directory

    assert conf_directory() in (ROOT / "conf", ROOT / "progtrain" / "conf")
    with opened(read([])) as session:
        assert {"model", "data", "growth", "growth/choice"} <= set(session.groups)
