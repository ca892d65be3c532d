"""`task=test`, `inspect` and `export` of what a run has stored, through the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_kit import parts, train, warming

import progtrain
from progtrain import cli
from progtrain.checkpoint.read import read
from progtrain.record import history_of
from progtrain.report import units
from progtrain.tasks.test import figures

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data=synthetic", "data.samples=128", "data.shape=[1,8,8]", "model=cnn", "model.width=4",
    "model.depth=2", "train.duration=12steps", "train.evaluate_every=3steps",
    "train.batch_size=32", "hardware=cpu", "hardware.threads=1", "growth=schedule", "train.ema=0.9",
    "growth.consolidation=1steps", "checkpoint.every=3steps", "checkpoint.keep=9",
)  # fmt: skip
Command = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has grown twice, started by the command."""
    place = tmp_path_factory.mktemp("stored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["progtrain"])
        assert cli.run([*TINY, f"hydra.run.dir={place}"]) == 0
    return place


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command in an empty directory; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["progtrain"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda *argv: cli.run([str(word) for word in argv])


def read_json(place: Path, name: str) -> Any:
    return json.loads((place / name).read_text(encoding="utf-8"))


def written(name: str) -> Any:
    """What the last command has written under outputs/."""
    (found,) = Path.cwd().glob(f"outputs/*/*/{name}")
    return json.loads(found.read_text(encoding="utf-8"))


# test


def test_task_test_prints_and_stores_what_the_run_reported(
    command: Command, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("task=test", f"checkpoint={run}") == 0
    told, shown = written("test.json"), capsys.readouterr().out
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    names = ["val/loss", "val/accuracy", "val/ema/loss", "val/ema/accuracy"]
    assert told["metrics"] == told["reported"] == {name: last[name] for name in names}
    assert (told["split"], told["samples"], told["step"]) == ("validation", 32, 12)
    assert told["changed"] == []
    assert all(name in shown for name in names) and f"{last['val/loss']:.6g}" in shown
    older = run / "checkpoints" / "step_00000003"
    assert command("task=test", f"checkpoint={older}", "hydra.run.dir=here") == 0
    assert read_json(Path("here"), "test.json")["metrics"] != told["metrics"]


APART = ("growth=schedule", "growth.consolidation=1steps", "growth.stages.deeper.at=3steps",
         "growth.stages.wider.at=13steps")  # fmt: skip
CASES = {
    "growing": ("growth=schedule", "warmup=none", "growth.consolidation=1steps"),
    "in a ramp": (*APART, *warming("linear_ramp", "9steps"), "train.ema=0.8"),
    "frozen": (*APART, *warming("frozen_host", "8steps")),
    "convolutions": ("growth=schedule", "model=cnn", "model.width=4", "model.dropout=0.3"),
    "joined": ("growth=schedule", "insert=attention", "insert.heads=2", "model=cnn",
               "model.width=4", "growth.stages.wider.operator=${insert}"),
    "heads": ("growth=schedule", "head=second", "train.heads=all", "train.answers=first",
              "growth.stages.wider.operator=${head}"),
    "bf16": ("growth=schedule", "hardware.precision=bf16"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_figures_are_the_runs_own_to_the_last_bit(name: str, tmp_path: Path) -> None:
    often = ("checkpoint.every=5steps", "checkpoint.keep=9", "train.evaluate_every=5steps")
    made = parts(*CASES[name], *often)
    train(made, tmp_path)
    steps = (5, 10, 15, 20, 24)
    alive: list[float] = []
    for step in steps:
        saved = read(tmp_path / "checkpoints" / f"step_{step:08d}")
        last = history_of(saved)[-1]
        assert last.moment.step == step
        found = figures(made, saved)
        wanted = {k: v for k, v in last.metrics.items() if k.startswith("val/")}
        assert dict(found.metrics) == dict(found.reported) == wanted
        state: Any = saved.documents["state"]
        alive += [e["alpha"] for e in state["events"] if e["phase"] == "WARMUP"]
    assert name != "in a ramp" or any(0 < alpha < 1 for alpha in alive)


def test_a_test_split_is_what_is_tested_where_there_is_one(tmp_path: Path) -> None:
    text = ("data=text", "data.length=8", "data.bytes=4000", "data.test=0.2", "model=gpt",
            "model.width=8", "model.heads=2", "model.depth=2", "growth=schedule")  # fmt: skip
    made = parts(*text)
    finished = train(made, tmp_path)
    found = figures(made, read(tmp_path))
    assert found.split == "test" and dict(found.metrics) == dict(finished.run.test or {})
    assert not found.reported


def test_other_data_are_normalised_as_in_training(
    command: Command, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("data.samples=200", "data.split_seed=5", "data.validation=0.5")
    assert command("task=test", f"checkpoint={run}", *more) == 0
    told = written("test.json")
    assert told["samples"] == 100 and told["metrics"] != told["reported"]
    assert told["changed"] == [m.partition("=")[0] for m in (more[0], more[2], more[1])]
    assert "other than in the run: data.samples" in capsys.readouterr().out


def test_data_that_the_network_cannot_be_tested_on(
    command: Command, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, told in {
        "data=digits": "Label 9 is in the data; the network knows 4 classes, 0 to 3",
        "data=text": "Samples are 128, the network was trained on 1×8×8",
        "data.shape=[3,8,8]": "Samples are 3×8×8, the network was trained on 1×8×8",
    }.items():
        assert command("task=test", f"checkpoint={run}", data) == 2
        assert told in capsys.readouterr().err
    assert not Path("outputs").exists()


# inspect


def test_inspect_shows_architecture_growths_metrics_hashes(
    command: Command, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("task=inspect", f"checkpoint={run}") == 0
    told, shown = written("inspect.json"), capsys.readouterr().out
    assert [growth["stage"] for growth in told["growth"]] == ["deeper", "wider"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [seen["val/loss"] for seen in told["evaluations"]] == [row["val/loss"] for row in rows]
    assert told["params"] == rows[-1]["params"] == told["model"][0]["params"]
    by_name = {module["name"]: module for module in told["model"]}
    assert by_name["head"]["parameters"] == {"weight": [4, 8], "bias": [4]}
    sums = subprocess.run(
        ["sha256sum", *told["files"]], cwd=told["checkpoint"], capture_output=True, text=True
    ).stdout.split()
    assert [f["sha256"] for f in told["files"].values()] == sums[::2] and sums
    assert told["versions"]["torch"] == torch.__version__ and told["format"] == 1
    assert told["inputs"]["shape"] == [1, 8, 8] and told["config"]["model"]["width"] == 4
    for word in ("CNN: 1,872 parameters", "0 and 1, each ConvBlock", "deeper", "wider", sums[0]):
        assert word in shown
    assert re.search(r"\nwritten: outputs/.*/inspect\.json\n$", shown)


def test_inspect_tells_what_the_run_has_cost_as_its_result_does(
    command: Command, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last checkpoint does not know what storing it took."""
    result = json.loads((run / "result.json").read_text())
    assert command("task=inspect", f"checkpoint={run}") == 0
    told, shown = written("inspect.json")["cost"], capsys.readouterr().out.splitlines()
    cost = {name: each for name, each in result["cost"].items() if name != "peak_mib"}
    storing = [each["uncharged"]["seconds"].pop("storing") for each in (told, cost)]
    assert told == cost and 0 < storing[0] < storing[1]
    assert sum(told["flops"].values()) == result["flops"]
    flops, seconds = (line for line in shown if line.startswith(("cost: ", "time: ")))
    sums = units.flops(result["flops"]), units.flops(told["uncharged"]["flops"]["evaluation"])
    assert flops.startswith(f"cost: {sums[0]}: training ")
    assert flops.endswith(f"; uncharged: evaluation {sums[1]}")
    assert re.fullmatch(r"time: .+: (training|growth) .+; uncharged: .*evaluation .+", seconds)


def test_inspect_goes_without_a_class_of_the_users(
    run: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_load import rewritten

    config: Any = read(run).documents["config"]
    model = {**config["model"], "_target_": "my_networks.Net"}
    path = rewritten(run, tmp_path / "other", config={**config, "model": model})
    assert command("task=inspect", f"checkpoint={path}") == 0
    told = written("inspect.json")
    assert "plugins=[my_networks]" in told["model"] and len(told["growth"]) == 2
    assert "No network: model: my_networks.Net is not progtrain's" in capsys.readouterr().out
    found = progtrain.inspect(run)
    assert found.metrics["val/loss"] and found.events[1].stage == "wider" and not found.missing


def test_damaged_foreign_and_newer_checkpoints_end_with_exit_code_4(
    run: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    damaged = tmp_path / "damaged" / "step_00000012"
    shutil.copytree(run / "checkpoints" / "step_00000012", damaged)
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    torch.save({}, tmp_path / "model.pt")
    newer = tmp_path / "newer" / "step_00000012"
    shutil.copytree(run / "checkpoints" / "step_00000012", newer)
    manifest = (newer / "MANIFEST.json").read_bytes()
    from progtrain.checkpoint import format as sealed

    content = json.loads(manifest)["manifest"] | {"format": 2}
    (newer / "MANIFEST.json").write_bytes(sealed._seal(content))
    for path, task, told in (
        (damaged, "test", "step_00000012 is damaged (model.safetensors: sha256 differs)"),
        (tmp_path / "model.pt", "predict", "refusing to load it"),
        (newer, "inspect", "Checkpoint format 2"),
        (tmp_path / "nowhere", "export", "Checkpoint not found"),
    ):
        assert command(f"task={task}", f"checkpoint={path}") == 4, (task, path)
        assert told in capsys.readouterr().err
    assert not Path("outputs").exists()


# export

LOADED = """
import sys, torch, safetensors.torch
assert "progtrain" not in sys.modules
data = safetensors.torch.load_file(sys.argv[2])
program = torch.export.load(sys.argv[1]).module()
for name in ("one", "many"):
    got = program(data[name])
    assert torch.allclose(got, data[f"{name}_out"], rtol=1e-5, atol=1e-6), (got, data[name])
assert "progtrain" not in sys.modules
"""


@pytest.mark.parametrize("step", [12, pytest.param(3, marks=pytest.mark.slow)])
def test_an_exported_program_computes_the_same_in_a_fresh_process(
    step: int, run: Path, command: Command, tmp_path: Path
) -> None:
    import safetensors.torch

    path = run / "checkpoints" / f"step_{step:08d}"
    arguments = (f"checkpoint={path}", "export.format=torch_export", "hydra.run.dir=out")
    assert command("task=export", *arguments) == 0
    model, torch_seed = progtrain.load(path), torch.Generator().manual_seed(0)
    data = {name: torch.randn(n, 1, 8, 8, generator=torch_seed) for name, n in
            (("one", 1), ("many", 37))}  # fmt: skip
    with torch.no_grad():
        data |= {f"{name}_out": model(x) for name, x in list(data.items())}
    safetensors.torch.save_file(data, tmp_path / "data.safetensors")
    files = [str(tmp_path / "out" / "model.pt2"), str(tmp_path / "data.safetensors")]
    done = subprocess.run([sys.executable, "-c", LOADED, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_weights_are_exported_as_safetensors_and_the_average_too(
    run: Path, command: Command
) -> None:
    import safetensors.torch

    for average in (False, True):
        out = Path(f"out_{average}")
        more = (f"export.average={str(average).lower()}", f"hydra.run.dir={out}")
        assert command("task=export", f"checkpoint={run}", *more) == 0
        held = safetensors.torch.load_file(out / "model.safetensors")
        wanted = progtrain.load(run, average=average).state_dict()
        assert held.keys() == wanted.keys()
        assert all(torch.equal(held[name], tensor) for name, tensor in wanted.items())
    assert progtrain.export(run, Path("mine.safetensors")) == Path("mine.safetensors")


def test_a_program_reads_tokens_and_a_ramp_is_in_it(tmp_path: Path) -> None:
    gpt = ("data=text", "data.length=8", "data.bytes=2000", "model=gpt", "model.width=8",
           "model.heads=2", "model.depth=2", "growth=schedule")  # fmt: skip
    ramp = (*warming("linear_ramp", "4steps"), "growth.consolidation=1steps")
    train(parts(*gpt, *ramp, "checkpoint.every=8steps", "checkpoint.keep=9"), tmp_path)
    path = tmp_path / "checkpoints" / "step_00000008"
    program = torch.export.load(progtrain.export(path, tmp_path / "gpt.pt2", "torch_export"))
    x = torch.randint(256, (5, 8))
    torch.testing.assert_close(program.module()(x), progtrain.load(path)(x).detach())
    with pytest.raises(progtrain.errors.CheckpointError, match=r"middle of a ramp.*later step"):
        progtrain.export(path, tmp_path / "gpt.safetensors")
    with pytest.raises(progtrain.errors.ConfigError, match="one of state_dict, torch_export"):
        progtrain.export(path, tmp_path / "gpt.onnx", "onnx")


# the command line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["task=test"], "task=test needs a checkpoint: progtrain task=test checkpoint="),
        (["checkpoint={run}"], "To continue that run: resume={run}"),
        (["task=train", "checkpoint={run}"], "is for task=test, task=predict"),
        (["task=plan", "checkpoint={run}"], "is for task=test, task=predict"),
        (["task=tset", "checkpoint={run}"], "no task for a checkpoint. Did you mean 'test'?"),
        (["-m", "task=test", "checkpoint={run}"], "leave -m out"),
        (["-m", "task=train,test"], "task=test is for the command line"),
        (["--cfg", "job", "task=test", "checkpoint={run}"], "leave the flag out"),
        (["task=test", "checkpoint={run}", "model=mlp"], "model cannot be changed: task=test"),
        (["task=inspect", "checkpoint={run}", "data=digits"], "data cannot be changed"),
        (["task=test", "checkpoint={run}", "hardwar=cpu"], "Did you mean 'hardware'?"),
        (["task=test", "checkpoint={run}", "data.sample=3"], "Did you mean 'data.samples'?"),
        (["task=test", "checkpoint={run}", "data=digit"], "Did you mean 'digits'?"),
        (["task=test", "checkpoint={run}", "data=digits,text"], "is a sweep"),
        (["task=test", "checkpoint={run}", "data.samples=1,2"], "is a sweep"),
        (["task=test", "checkpoint={run}", "data.samples=x"], "data.samples must be"),
        (["task=export", "checkpoint={run}", "export.format=onnx"], "state_dict, torch_export"),
        (["task=test", "checkpoint={run}", "plugins=[os]"], "'os' cannot be allowed"),
    ],
)
def test_what_is_wrong_with_a_command(
    argv: list[str],
    told: str,
    command: Command,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(*(word.replace("{run}", str(run)) for word in argv)) == 2
    assert told.replace("{run}", str(run)) in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_run_of_before_these_settings_is_tested_with_their_defaults(
    run: Path, tmp_path: Path, command: Command
) -> None:
    from test_load import rewritten

    config: Any = dict(read(run).documents["config"])  # type: ignore[arg-type]
    for name in ("predict", "export", "metric", "loss", "augment", "mix"):
        config.pop(name, None)
    path = rewritten(run, tmp_path / "old", config=config, inputs=None)
    assert command("task=test", f"checkpoint={path}") == 0
    told = written("test.json")
    assert told["metrics"] == told["reported"]


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(run: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "progtrain", "task=test", f"checkpoint={run}"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "val/accuracy" in done.stdout and not done.stderr
