"""What the command line says to a wrong command, row by row, before anything is started.

A row is the words typed and the whole message expected. The checks run in this process; the real
command is run in test_cli.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from progtrain.command_line import resume
from progtrain.command_line.argv import Command, read
from progtrain.command_line.check import check, plan
from progtrain.command_line.directory import claim, take
from progtrain.command_line.session import Session, given, opened
from progtrain.command_line.surprises import surprises
from progtrain.command_line.typos import meant
from progtrain.command_line.values import fit
from progtrain.errors import ProgtrainError


@cache
def _shared() -> Session:
    """One session for all commands without YAML of their own; opening one takes a while."""
    with opened(read([])) as session:
        return session


@contextmanager
def _session(command: Command) -> Generator[Session]:
    if command.config_dir is None:
        yield _shared()
    else:
        with opened(command) as session:
            yield session


def told(typed: str) -> str:
    """The message for a command; empty where the command is right."""
    try:
        command = read(shlex.split(typed))
        with _session(command) as session:
            check(session, command)
    except ProgtrainError as error:
        assert error.exit_code == 2
        return str(error)
    return ""


def warned(typed: str) -> tuple[str, ...]:
    command = read(shlex.split(typed))
    with _session(command) as session:
        check(session, command)
        return plan(session, command).warnings


MODELS = "cnn, gpt, mlp, resnet, torchvision, vit"
NAMES = {
    "1 option": (
        "model=mpl",
        f"Unknown model 'mpl'. Did you mean 'mlp'? Available: {MODELS}.",
    ),
    "2 group": ("modle=mlp", "Unknown setting 'modle'. Did you mean 'model'?"),
    "1 several monitors": ("monitor=[instability,slow] monitor.slow.remedy=grow", ""),
    "1 a monitor that is not there": (
        "monitor=[instability,slwo]",
        "Unknown monitor 'slwo'. Did you mean 'slow'? Available: contribution, gradients,"
        " instability, learning_rate, memory, mfu, none, shock, slow, throughput.",
    ),
    "1 a monitor twice": ("monitor=[slow,slow]", "monitor=[slow,slow] names one option twice."),
    "1 no monitor": ("monitor=[]", "monitor=[] chooses nothing: write monitor=none."),
    "1 a setting of a monitor": (
        "monitor=slow monitor.slow.remedy=rollback",
        "monitor.slow.remedy must be warn, adapt, grow, stop, got 'rollback'. No growth is to blame"
        " for a plateau, so none is undone.",
    ),
    "3 key": ("model.widht=3", "Unknown setting 'model.widht'. Did you mean 'model.width'?"),
    "3 key without its group": ("lr=0.1", "Unknown setting 'lr'. Did you mean 'optimizer.lr'?"),
    "3 key of a near group": (
        "optim.lr=0.1",
        "Unknown setting 'optim.lr'. Did you mean 'optimizer.lr'?",
    ),
    "3 key of Hydra": (
        "hydra.run.dri=x",
        "Unknown setting 'hydra.run.dri'. Did you mean 'hydra.run.dir'?",
    ),
    "4 added": (
        "+foo=1",
        "Unknown setting 'foo' (added with '+'): progtrain has no such setting.",
    ),
    "4 added to a class": (
        "+model.widht=3",
        "Unknown setting 'model.widht'. Did you mean 'model.width'?",
    ),
    "4 added twice": (
        "+model.width=3",
        "model.width exists already: write model.width=3 without '+'.",
    ),
    "4 not added": (
        "growth.start.width=0.5",
        "Unknown setting 'growth.start.width'. To add it: +growth.start.width=0.5",
    ),
    "4 unknown size": (
        "+growth.start.widht=0.5",
        "Unknown setting 'growth.start.widht': no setting of the model."
        " Did you mean 'growth.start.width'?",
    ),
    "reference": (
        "growth=plateau growth.stages.wider.factor=3",
        "growth.stages.wider is ${widen}: set widen.factor instead of growth.stages.wider.factor.",
    ),
    "group of settings": (
        "train=5",
        "train holds settings of its own: set train.duration, train.batch_size,"
        " train.accumulate, train.evaluate_every.",
    ),
    "removed": ("~seed", "seed cannot be removed; give it a value."),
    "52 removed group": ("~model", f"model is required; choose one: {MODELS}."),
    "53 no option": ("model=null", f"model is required; choose one: {MODELS}."),
    "54 two options": (
        "model=[mlp,cnn]",
        "Choose one model, got 2: mlp, cnn. To try each: -m model=mlp,cnn.",
    ),
    "33 another name for a GPU": (
        "hardware=cuda",
        "Unknown hardware 'cuda'. Did you mean 'gpu'?"
        " Available: auto, cpu, ddp, deepspeed, fsdp, gpu.",
    ),
    "65 option outside": (
        "model=../../x",
        f"model='../../x' is no name of an option. Available: {MODELS}.",
    ),
    "65 absolute option": (
        "model=/etc/x",
        f"model='/etc/x' is no name of an option. Available: {MODELS}.",
    ),
}

VALUES = {
    "5 text for a number": ("model.width=abc", "model.width must be a whole number, got 'abc'."),
    "6 fraction": ("model.width=1.5", "model.width must be a whole number, got 1.5."),
    "7 too small": (
        "train.batch_size=-5",
        "train.batch_size must be a whole number >= 1, got -5.",
    ),
    "7 zero": ("train.batch_size=0", "train.batch_size must be a whole number >= 1, got 0."),
    "8 too many digits": (
        "train.batch_size=9999999999999999999999",
        "train.batch_size must be at most 1e+12, got 9999999999999999999999."
        " Did you mean fewer digits?",
    ),
    "8 too long": (
        "train.duration=1e30steps",
        "train.duration must be at most 1e24, got '1e30steps'. Did you mean fewer digits?",
    ),
    "9 nan": ("optimizer.lr=nan", "optimizer.lr must be a finite number, got nan."),
    "9 inf": ("optimizer.lr=inf", "optimizer.lr must be a finite number, got inf."),
    "9 negative": (
        "optimizer.lr=-0.1",
        "optimizer.lr must be a number > 0 and below 1e6, got -0.1.",
    ),
    "9 zero": ("optimizer.lr=0", "optimizer.lr must be a number > 0 and below 1e6, got 0."),
    "10 cut": ("optimizer.lr=1e", "optimizer.lr must be a finite number, got '1e'."),
    "10 decimal comma": (
        "optimizer.lr=0,1",
        "optimizer.lr: '0,1' looks like a decimal comma; write 0.1, or add -m to sweep over"
        " 0 and 1.",
    ),
    "11 empty": (
        "train.duration=",
        "train.duration needs a value, for example train.duration=30epochs.",
    ),
    "11 null": (
        "train.batch_size=null",
        "train.batch_size must be a whole number, got null.",
    ),
    "12 negative limit": (
        "stop.max_flops=-1",
        "stop.max_flops must be a finite number > 0, or null for no limit, got -1.",
    ),
    "no unit": (
        "train.duration=30",
        "train.duration must be a length such as 200steps, 3epochs, 5000samples, 1e12flops,"
        " 60seconds or 20%, got '30'. Say the unit: 30steps?",
    ),
    "share of itself": (
        "train.duration=50%",
        "train.duration must be a length in steps, epochs, samples, flops or seconds, got '50%'."
        " It is what shares are shares of.",
    ),
    "switch": (
        "hardware.compile=1",
        "hardware.compile must be false, true, default, reduce-overhead, max-autotune, got '1'."
        " true is default; reduce-overhead replays CUDA graphs, which helps small networks.",
    ),
    "text": ("train.metric=true", "train.metric must be text, got true."),
    "mode": ("train.mode=best", "train.mode must be max or min, got 'best'."),
    "inner class": (
        "growth=plateau growth.trigger.patience=0.5",
        "growth.trigger.patience must be a whole number, got 0.5.",
    ),
    "share of a size": (
        "++growth.start.width=1.5",
        "growth.start.width must be a whole number or a share in (0, 1], got 1.5.",
    ),
    "share of no number": (
        "++growth.start.activation=0.5",
        "growth.start.activation=0.5 is a share, but the full setting is 'relu', no whole number.",
    ),
    "51 seed": (
        "seed=-1",
        "seed must be a whole number from 0 to 2^63 - 1, or null, got -1.",
    ),
    "51 large seed": (
        "seed=1180591620717411303424",
        "seed must be a whole number from 0 to 2^63 - 1, or null, got 1180591620717411303424.",
    ),
    "51 seed in words": (
        "seed=abc",
        "seed must be a whole number from 0 to 2^63 - 1, or null, got 'abc'.",
    ),
    "62 reference to nothing": (
        "'train.metric=${nope}'",
        "train.metric refers to 'nope', which does not exist.",
    ),
    "62 no such variable": (
        "'train.metric=${oc.env:PROGTRAIN_NOPE}'",
        "train.metric: environment variable PROGTRAIN_NOPE is not set.",
    ),
    "62 circle": (
        "'train.metric=${train.mode}' 'train.mode=${train.metric}'",
        "2 problems, nothing was started.\n"
        "  train.metric and train.mode refer to each other.\n"
        "  train.mode and train.metric refer to each other.",
    ),
    "66 keep": (
        "checkpoint.keep=1",
        "checkpoint.keep must be a whole number >= 2, got 1. One of them may be damaged.",
    ),
    "66 negative": (
        "checkpoint.every=-1steps",
        "checkpoint.every must be a length such as 200steps, 3epochs, 5000samples, 1e12flops,"
        " 60seconds or 20%, got '-1steps'.",
    ),
    "8 every whole number": (
        "checkpoint.keep=1e15",
        "checkpoint.keep must be at most 1e+12, got 1000000000000000.0. Did you mean fewer digits?",
    ),
    "8 a size of a model": (
        "model.width=1000000000",
        "model.width must be a whole number, 1 to 1000000, got 1000000000.",
    ),
    "8 more than a float holds": (
        "stop.max_flops=1e400",
        "stop.max_flops must be a finite number or null, got inf.",
    ),
    "66 every": (
        "checkpoint.every=0%",
        "checkpoint.every must be longer than 0, got '0%'. Try 25%.",
    ),
}

FORMS = {
    "56 sweep without -m": (
        "train.duration=1epoch,2epochs",
        "train.duration=1epoch,2epochs is a sweep: add -m."
        " For a list write train.duration=[1epoch,2epochs].",
    ),
    "56 options without -m": ("model=cnn,mlp", "model=cnn,mlp is a sweep: add -m."),
    "56 range without -m": ("seed=range(3)", "seed=range(3) is a sweep: add -m."),
    "60 dashes": ("--seed=3", "Settings take no dashes: seed=3."),
    "60 dashes and a word": ("--width", "Settings take no dashes: width=<value>."),
    "60 wrong flag": ("--mutlirun", "Unknown option '--mutlirun'. Did you mean '--multirun'?"),
    "61 no value": ("steps", "'steps' is not a setting=value pair."),
    "61 spaces": (
        "seed = 3",
        "3 problems, nothing was started.\n"
        "  'seed' is not a setting=value pair.\n"
        "  Write settings without spaces around '=': setting=value.\n"
        "  '3' is not a setting=value pair.",
    ),
    "61 open quote": ('"data.root=\'a b"', "Unclosed quote in: data.root='a b"),
    "65 rerun": (
        "--experimental-rerun x.pickle",
        "--experimental-rerun is refused: it would run code from that file.",
    ),
    "65 config path": (
        "--config-path x",
        "--config-path is not supported. --config-dir adds a directory of yours.",
    ),
    "no config directory": (
        "--config-dir /nowhere",
        "Config directory not found: /nowhere.",
    ),
}

TARGETS = {
    "65 os": ("os.system", "os.system is refused: a configuration may not name it."),
    "65 torch": (
        "torch.hub.load",
        "torch.hub.load is not progtrain's. To allow the package: plugins=[torch].",
    ),
    "65 through progtrain": (
        "progtrain.command_line.targets.os.system",
        "progtrain.command_line.targets.os.system is really from posix; name it there.",
    ),
    "65 beginning alike": (
        "progtrainer.Net",
        "progtrainer.Net is not progtrain's. To allow the package: plugins=[progtrainer].",
    ),
    "65 function": (
        "progtrain.cli.main",
        "progtrain.cli.main is a function; only classes can be built.",
    ),
    "no such class": (
        "progtrain.models.mlp.MPL",
        "progtrain.models.mlp has no 'MPL'. Did you mean 'MLP'?",
    ),
    "no such module": (
        "progtrain.models.nothing.Net",
        "progtrain.models has no 'nothing'.",
    ),
    "no name": ("1", "1 is no name of a class, such as mypackage.module.Class."),
}


@pytest.mark.parametrize(("typed", "message"), NAMES.values(), ids=NAMES)
def test_a_wrong_name_is_told_with_the_nearest_right_one(typed: str, message: str) -> None:
    assert told(typed) == message


@pytest.mark.parametrize(("typed", "message"), VALUES.values(), ids=VALUES)
def test_a_wrong_value_is_told_with_what_is_allowed(typed: str, message: str) -> None:
    assert told(typed) == message


@pytest.mark.parametrize(("typed", "message"), FORMS.values(), ids=FORMS)
def test_a_wrong_form_is_told_with_the_right_one(typed: str, message: str) -> None:
    assert told(typed) == message


@pytest.mark.parametrize(("target", "message"), TARGETS.values(), ids=TARGETS)
def test_a_class_that_is_not_allowed_is_refused(target: str, message: str) -> None:
    assert told(f"model._target_={target}") == f"model._target_: {message}"


@pytest.mark.parametrize(
    "key", ["hydra.callbacks.x", "hydra.job_logging.x", "hydra.hydra_logging", "hydra.searchpath"]
)
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_what_runs_before_the_check_cannot_be_set(key: str, sign: str) -> None:
    wanted = f"{key} cannot be set: it could run code before the check of the settings."
    assert wanted in told(f"{sign}{key}=a")


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "model=mlp growth=plateau seed=3",
        "train.batch_size=1e2 model.width=16.0",
        "+growth.start={width:0.5}",
        "+growth.start.width=8",
        "growth=schedule +growth.stages.third={_target_:progtrain.growth.schedule.At,at:80%,"
        "'operator:${widen}'}",
        "growth=plateau ~growth.stages.deeper",
        "growth=budget growth/choice=steepest growth.max_params=50000",
        "scheduler=multistep scheduler.milestones=[10%,20%]",
        "scheduler=function scheduler.function.knee=0.2",
        "data=cifar10",
        "stop.patience=2 stop.target=0.9 seed=null",
        "hydra/job_logging=stdout",
        "-m model=cnn,mlp seed=0,1",
        "-m seed=range(0,3) growth=glob(*)",
        "model=mlp -m seed=0,1",
    ],
)
def test_a_right_command_is_accepted(typed: str) -> None:
    assert told(typed) == ""


@pytest.mark.slow
def test_every_option_of_every_group_is_right(tmp_path: Path) -> None:
    groups = {group: _shared().options(group) for group in _shared().groups}
    alone = ("hydra", "study")  # a study replaces the command; test_study composes each
    ours = {group: names for group, names in groups.items() if not group.startswith(alone)}
    assert len(ours) >= 11
    within = {
        "growth/choice": "growth=budget ",
        "curriculum/score": "curriculum=difficulty ",
        "curriculum/pacing": "curriculum=difficulty ",
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    needs = {
        "gpt": "data=text ",
        "text": "model=gpt ",
        "column": "curriculum.score.name=hardness ",
        "image_folder": f"data.root={tmp_path} ",
    }
    for group, names in ours.items():
        for name in names:
            beside = within.get(group, "") + needs.get(name, "")
            beside += "train.metric=val/loss " if group == "metric" else ""
            assert told(f"{beside}{group}={name}") == "", f"{group}={name}"


def test_all_problems_come_in_one_report() -> None:
    typed = "model=mpl model.widht=3 train.batch_size=-5 +foo=1 --steps=3 steps optimizer.lr=nan"
    assert told(typed).splitlines() == [
        "7 problems, nothing was started.",
        "  Settings take no dashes: steps=3.",
        "  'steps' is not a setting=value pair.",
        f"  Unknown model 'mpl'. Did you mean 'mlp'? Available: {MODELS}.",
        "  Unknown setting 'model.widht'. Did you mean 'model.width'?",
        "  Unknown setting 'foo' (added with '+'): progtrain has no such setting.",
        "  optimizer.lr must be a finite number, got nan.",
        "  train.batch_size must be a whole number >= 1, got -5.",
    ]


def test_a_part_that_refuses_is_blamed_once_where_it_was_set() -> None:
    assert told("growth=plateau widen.factor=1") == told("widen.factor=1")
    assert told("growth=plateau widen.factor=1").startswith("widen.factor must be")


def test_a_model_refuses_before_the_run_under_its_full_name() -> None:
    assert told("model.activation=gleu").startswith("model.activation must be one of relu, ")
    assert told("model.width=0").startswith("model.width must be")


def test_58_a_sweep_names_the_jobs_with_a_bad_value() -> None:
    assert told("-m model=cnn,mlp seed=0,-1") == (
        "jobs #1 and #3 of 4: seed must be a whole number from 0 to 2^63 - 1, or null, got -1."
    )
    assert told("-m model=cnn,mpl seed=0,1").startswith("jobs #2 and #3 of 4: Unknown model 'mpl'.")
    assert told("-m seed=0,1 train.batch_size=0").startswith("train.batch_size must be")


def test_58_a_long_sweep_is_checked_value_by_value() -> None:
    message = told("-m seed=range(100) train.batch_size=1,2,abc model=mlp")
    assert message == "job #2 of 102: train.batch_size must be a whole number, got 'abc'."


def test_59_a_sweep_without_end_is_refused() -> None:
    assert told("-m seed=range(1000000)") == (
        "This multirun has 1,000,000 jobs; the most is 10,000. Sweep over less."
    )


@pytest.mark.parametrize(
    ("typed", "warning"),
    [
        ("model.width=8 model.width=9", "model.width is given twice; using 9."),
        ("seed=1 seed=2 seed=3", "seed is given 3 times; using 3."),
        ("-m seed=1", "-m is given but nothing varies: 1 job."),
        (
            "checkpoint.every=31epochs",
            "checkpoint.every=31epochs is longer than the run: only the last checkpoint is"
            " written; a crash loses the whole run.",
        ),
        (
            "train.duration=20steps train.evaluate_every=21steps",
            "train.evaluate_every=21steps is longer than the run: the network is evaluated once,"
            " at the end.",
        ),
    ],
    ids=["55 twice", "55 thrice", "57 nothing to sweep", "67 stored late", "67 evaluated late"],
)
def test_what_is_odd_but_not_wrong_is_warned_of(typed: str, warning: str) -> None:
    assert warned(typed) == (warning,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${nope}", "hydra.run.dir refers to 'nope', which does not exist."),
        ("${oc.env:PROGTRAIN_NOPE}", "hydra.run.dir: environment variable PROGTRAIN_NOPE is not"
                                     " set."),
        ("${nope:1}", "hydra.run.dir = '${nope:1}' cannot be resolved: Unsupported interpolation"
                      " type nope."),
    ],
)  # fmt: skip
def test_62_a_directory_that_refers_to_nothing_is_told(value: str, message: str) -> None:
    with pytest.raises(ProgtrainError) as caught:
        warned(f"'hydra.run.dir={value}'")
    assert (caught.value.exit_code, str(caught.value)) == (2, message)


def test_a_plain_command_is_not_warned_of() -> None:
    assert warned("model=mlp") == ()
    assert warned("-m seed=0,1") == ()


BROKEN_YAML = {
    "63 tab": (b"width: 1\n\tdepth: 2\n", "mine.yaml:2: tabs are not allowed in YAML; use spaces."),
    "63 twice": (b"width: 1\nwidth: 2\n", "mine.yaml:2: found duplicate key width."),
    "63 not UTF-8": (b"width: \xff\n", "mine.yaml is not UTF-8."),
    "63 list": (b"- 1\n- 2\n", "model must be settings with a _target_, got [1, 2]."),
}


@pytest.mark.parametrize(("text", "part"), BROKEN_YAML.values(), ids=BROKEN_YAML)
def test_a_broken_file_is_named(tmp_path: Path, text: bytes, part: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_bytes(text)
    assert part in told(f"--config-dir {tmp_path} model=mine")


NO_SETTINGS = {
    "63 a list": ("- 1\n", "mine.yaml holds a list; write settings in it, such as 'name: value'."),
    "63 empty": ("", "mine.yaml holds nothing; write settings in it, such as 'name: value'."),
    "63 a word": ("hello\n", "mine.yaml holds the text 'hello'; write settings in it, such as"
                             " 'name: value'."),
    "63 a stranger": ("# @package _global_\ntrian: {clip: 1}\n", "Unknown setting 'trian' in a"
                      " file of yours: nothing reads it. Did you mean 'train'?"),
    "63 a mark at the beginning": ("\ufeff# @package _global_\nseed: 3\n", ""),
    "63 a name of one's own": (
        "# @package _global_\nsize: 8\nmodel: {width: '${size}'}\n", ""),
}  # fmt: skip


@pytest.mark.parametrize(("text", "part"), NO_SETTINGS.values(), ids=NO_SETTINGS)
def test_a_file_that_sets_nothing_is_told(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    message = told(f"--config-dir {tmp_path} experiment=mine")
    assert message.endswith(part) and bool(message) == bool(part)


def test_64_what_yaml_reads_otherwise_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: 010\ny: '010'\nz: 1:30\nmode: off\nw: 10\n")
    assert [text.rpartition("/")[2] for text in surprises(tmp_path)] == [
        "a.yaml:1: 010 means 8 in YAML (octal); write 10; quote it to keep it as text.",
        "a.yaml:3: 1:30 means 90 in YAML (base 60); quote it to keep it as text.",
        "a.yaml:4: off means false in YAML; quote it to keep it as text.",
    ]


@pytest.mark.parametrize(
    ("node", "part"),
    [
        ("callbacks: {x: {_target_: torch.hub.load}}", "hydra.callbacks cannot be set"),
        ("job_logging: {handlers: {h: {class: os.system}}}", "'os.system' is refused"),
        ("job_logging: {formatters: {h: {(): torch.load}}}", "'torch.load' is refused"),
        ("launcher: {_target_: mine.Launcher}", "'mine.Launcher' is refused"),
    ],
)
def test_65_code_in_the_hydra_node_of_a_foreign_config_is_refused(
    tmp_path: Path, node: str, part: str
) -> None:
    text = "defaults: [config, _self_]\nhydra: {" + node + "}\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert part in told(f"--config-dir {tmp_path} --config-name mine")


@pytest.mark.parametrize(
    ("value", "annotation", "fitted", "allowed"),
    [
        (16.0, "int", 16, ""),
        (1e3, "int | None", 1000, ""),
        (None, "int | None", None, ""),
        (None, "Optional[int]", None, ""),
        (None, "int", None, "a whole number"),
        (True, "int", True, "a whole number"),
        (3, "float", 3, ""),
        (3, "str", "3", ""),
        (3, "int | str", 3, ""),
        ("x", "int | None", "x", "a whole number or null"),
        ([1, 2.0], "tuple[int, ...]", [1, 2], ""),
        ([1, "x"], "Sequence[int]", [1, "x"], "a list of whole numbers"),
        (5, "Sequence[str]", 5, "a list of names"),
        (5, "Mapping[str, int | float]", 5, "settings such as {name: value}"),
        (5, "Callable[[float], float]", 5, ""),
        (None, "Duration", None, ""),
        ("5", "typing.Union[bool, int]", "5", "true or false or a whole number"),
    ],
)
def test_values_are_held_against_annotations(
    value: object, annotation: str, fitted: object, allowed: str
) -> None:
    verdict = fit(value, annotation)
    assert (verdict.allowed, verdict.value) == (allowed, fitted)
    assert type(verdict.value) is type(fitted)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("lr", "optimizer.lr"),
        ("optim.lr", "optimizer.lr"),
        ("model.widht", "model.width"),
        ("widht", "model.width"),
        ("modle", "model"),
        ("xyzzy", None),
    ],
)
def test_the_nearest_name_is_found(word: str, name: str | None) -> None:
    known = ["seed", "model", "model.width", "model.depth", "optimizer", "optimizer.lr"]
    assert meant(word, known) == name


def _resumed(typed: str) -> str:
    command = read(shlex.split(typed))
    named = given(command.overrides, "hydra.run.dir")
    place = Path(named) if isinstance(named, str) else None
    try:
        resume.continued(command, given(command.overrides, "resume"), place)
    except ProgtrainError as error:
        return f"{error.exit_code}: {error}"
    return "0: "


def test_42_43_50_a_resume_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "run-a" / "checkpoints").mkdir(parents=True)
    at = tmp_path / "run-a"
    rows = {
        f"resume={at}": f"4: No checkpoint in {at}. Start without resume.",
        f"resume=true hydra.run.dir={at}": f"4: No checkpoint in {at}. Start without resume.",
        f"resume={tmp_path}/run-b": f"4: Run directory not found: {tmp_path}/run-b. Nearest: {at}.",
        "resume=/nope/run": "4: Run directory not found: /nope/run.",
        f"resume={at}/checkpoints": f"4: resume takes the directory of the run: resume={at}.",
        "resume=maybe": "2: resume must be true, false, auto or a path, got 'maybe'.",
        "resume=3": "2: resume must be true, false, auto or a path, got 3.",
        "resume=true": "2: resume=true continues hydra.run.dir, which is not given."
        " Write resume=<directory of the run>.",
        f"-m resume={at}": f"2: resume={at} names one run. A multirun is continued by the same"
        " command with resume=auto hydra.sweep.dir=<directory of the multirun>.",
        f"resume=auto hydra.run.dir={at}": "0: ",
        "resume=false": "0: ",
    }
    for typed, message in rows.items():
        assert _resumed(typed) == message, typed


def test_38_39_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").touch()
    rows = [
        (take, tmp_path / "a", 6, "already holds a run. Continue it with resume="),
        (take, tmp_path / "file", 5, "Cannot write to output directory .*: file exists"),
        (take, tmp_path / "file" / "x", 5, "Cannot write to output directory .*: not a directory"),
        (claim, tmp_path / "file" / "x", 5, "Cannot write to output directory .*"),
        (take, Path("/proc/x"), 5, "Cannot write to output directory /proc/x: no such file"),
    ]
    for use, path, code, pattern in rows:
        with pytest.raises(ProgtrainError, match=pattern) as caught:
            use(path)
        assert caught.value.exit_code == code
    assert take(tmp_path / "a", shared=True) == tmp_path / "a"


def test_messages_do_not_steer_the_terminal() -> None:
    from progtrain.command_line.job import printable

    assert printable("a\x1b[31mb\nc\r") == "a\\x1b[31mb\nc\\r"
    assert not re.search(r"[\x00-\x08\x1b]", printable(told("'model=a\x1b[31m'")))
