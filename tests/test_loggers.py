"""Trackers are told every row, growth and result once, read back from what they have stored."""

from __future__ import annotations

import csv
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_fakes import a_run, advance, an_event
from run_kit import Finished, at_step, config, differences, parts, resume, train

from progtrain import build
from progtrain.errors import ConfigError
from progtrain.loggers import logger as loggers
from progtrain.loggers.logger import Book, Result, flat
from progtrain.report.files import Files, truncate
from progtrain.report.tracked import Tracked
from progtrain.run import Observation, StopReason

ROOT = Path(__file__).parent.parent
GROWING = (
    "growth=schedule",
    "growth.stages.deeper.at=8steps",
    "growth.stages.wider.at=16steps",
    "checkpoint.every=8steps",
    "checkpoint.keep=9",
    "monitor=shock",
    "monitor.shock.within=1steps",
)
ROWS = [5, 10, 15, 20, 24]
# third-party packages warn of things that are not ours to change
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a tracker would write outside of the run lands where a test can see it."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(home / "wandb"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read what has been told


def made(*chosen: str):
    names = ",".join(chosen) or "none"
    return parts(*GROWING, f"logger=[{names}]")


# reading back


def board(directory: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[int]]]:
    """Scalars of TensorBoard as (step, value), and the steps of its texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stored = EventAccumulator(str(directory / "tensorboard"), {"scalars": 0, "tensors": 0})
    stored.Reload()
    tags = stored.Tags()
    scalars = {tag: [(e.step, e.value) for e in stored.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: [e.step for e in stored.Tensors(tag)] for tag in tags["tensors"]}


def hyperparameters(directory: Path) -> Mapping[str, Any]:
    """What the table of hyperparameters of TensorBoard says of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    stored = EventAccumulator(str(directory / "tensorboard"))
    stored.Reload()
    told = stored.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    return HParamsPluginData.FromString(told).session_start_info.hparams


def remote(directory: Path) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
    """The only run of an MLflow store, and its metrics as (step, value)."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(directory / "mlruns").as_uri())
    place = client.get_experiment_by_name("progtrain")
    (run,) = client.search_runs([place.experiment_id])
    metrics = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    return run, metrics


def records(path: Path) -> list[Any]:
    """What the service of Weights & Biases has stored; it writes a moment after the run's end."""
    for _ in range(200):
        found = list(_records(path))
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def _records(path: Path) -> Iterator[Any]:
    """A log in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def service(directory: Path) -> tuple[list[dict[str, Any]], dict[str, Any], set[str]]:
    """Rows, summary and ids of the runs of Weights & Biases below a directory."""
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    ids: set[str] = set()
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            match record.WhichOneof("record_type"):
                case "history":
                    items = record.history.item
                    rows.append({"/".join(i.nested_key): json.loads(i.value_json) for i in items})
                case "summary":
                    items = record.summary.update
                    summary |= {i.key: json.loads(i.value_json) for i in items if i.key}
                case "run":
                    ids.add(record.run.run_id)
    return rows, summary, ids


def steps(points: list[tuple[int, float]]) -> list[int]:
    return [step for step, _ in points]


# a run told to all of them


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return train(made("tensorboard", "mlflow", "wandb"), tmp_path_factory.mktemp("lg") / "all")


def test_being_told_changes_no_bit_of_a_run(told: Finished, tmp_path: Path) -> None:
    silent = train(made(), tmp_path / "none")
    changed = [name for name in differences(told, silent) if name != "events.jsonl:0"]
    assert not changed  # the first event says which options were chosen
    assert not (tmp_path / "none" / "loggers").exists()


def test_tensorboard_has_rows_growths_and_settings(told: Finished) -> None:
    scalars, texts = board(told.directory)
    for name in ("val/accuracy", "val/loss", "train/loss", "lr", "params", "flops", "seconds"):
        assert steps(scalars[name]) == ROWS, name
    rows = [json.loads(line) for line in (told.directory / "metrics.jsonl").open()]
    kept = [value for _, value in scalars["val/loss"]]
    assert kept == pytest.approx([row["val/loss"] for row in rows])
    events = told.run.events
    sizes = [events[0].params_before, *(event.params_after for event in events)]
    assert scalars["growth/params"] == list(zip([0, 8, 16], sizes, strict=True))
    assert texts["growth/text_summary"] == [8, 16]
    assert texts["settings/text_summary"] == [0] and texts["result/text_summary"] == [24]
    assert scalars["final/metric"] == [(24, pytest.approx(told.run.last_metric))]
    assert set(hyperparameters(told.directory)) >= {"train.batch_size", "growth._target_", "seed"}


def test_mlflow_has_rows_growths_settings_and_artifacts(told: Finished) -> None:
    run, metrics = remote(told.directory)
    assert run.info.run_name.endswith("/all") and run.info.status == "FINISHED"
    assert steps(metrics["val/accuracy"]) == steps(metrics["lr"]) == ROWS
    assert steps(metrics["growth/params"]) == [0, 8, 16]
    assert run.data.params["model._target_"] == "progtrain.models.mlp.MLP"
    assert run.data.params["growth.stages.wider.at"] == "16steps"
    assert "growth 1 deeper at step 8" in run.data.tags["growth.8"]
    assert run.data.tags["stop"] == "DURATION"
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    kept = (artifacts / "events.jsonl").read_text().splitlines()
    assert [json.loads(row)["kind"] for row in kept].count("growth") == 2
    assert json.loads((artifacts / "result.json").read_text())["status"] == "done"


def test_wandb_has_rows_growths_and_a_summary(told: Finished) -> None:
    rows, summary, ids = service(told.directory)
    assert [row["step"] for row in rows if "val/loss" in row] == ROWS
    grown = [row for row in rows if "growth/index" in row]
    assert [(row["step"], row["growth/index"]) for row in grown] == [(8, 0), (16, 1)]
    assert grown[1]["growth/params"] == told.run.params
    assert summary["stop"] == "DURATION" and summary["final/growths"] == 2
    assert summary["final/metric"] == pytest.approx(told.run.last_metric)
    assert len(ids) == 1


def test_findings_and_metrics_of_tests_are_told(tmp_path: Path) -> None:
    book, heard = Book(tmp_path, {}), Hearing()
    tracked = Tracked("fake", heard, book, fails)
    run = a_run(0)
    tracked.started(run, [])
    advance(run, 800)
    run.stopped, run.test = StopReason.DURATION, {"test/accuracy": 0.75}
    tracked.found(run, "finding", "shock: it has not recovered", an_event(run))
    tracked.stopped(run)
    tracked.close()
    assert (800, "finding", "shock: it has not recovered") in heard.texts
    assert heard.result is not None and heard.result.figures["test/accuracy"] == 0.75


# going on


@pytest.fixture(scope="module")
def again(told: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Killed behind step 20 and resumed from step 8, where a growth comes directly after."""
    directory = tmp_path_factory.mktemp("again") / "all"
    chosen = made("tensorboard", "mlflow", "wandb")
    train(chosen, directory, at_step(21, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    for folder in directory.glob("checkpoints/step_*"):
        if folder.name != "step_00000008":
            for file in sorted(folder.rglob("*"), reverse=True):
                file.unlink() if file.is_file() else file.rmdir()
            folder.rmdir()
    return resume(chosen, directory)


def test_what_goes_on_repeats_no_step_in_tensorboard(again: Finished, told: Finished) -> None:
    one, other = board(again.directory)[0], board(told.directory)[0]
    timed = ("seconds", "final/seconds")
    assert {k: v for k, v in one.items() if k not in timed} == {
        k: v for k, v in other.items() if k not in timed
    }
    assert len(list((again.directory / "tensorboard").glob("events*"))) == 2


def test_what_goes_on_is_the_same_run_of_mlflow(again: Finished, told: Finished) -> None:
    run, metrics = remote(again.directory)
    _, other = remote(told.directory)
    assert run.info.status == "FINISHED"
    for name in ("val/loss", "growth/params", "growth/index", "lr", "train/loss"):
        assert metrics[name] == other[name], name


def test_what_goes_on_is_the_same_run_of_wandb(again: Finished, told: Finished) -> None:
    rows, summary, ids = service(again.directory)
    assert len(ids) == 1 and len(list(again.directory.glob("wandb/offline-run-*"))) == 2
    assert [row["step"] for row in rows if "val/loss" in row] == ROWS
    assert [row["step"] for row in rows if "growth/index" in row] == [8, 16]
    assert summary["stop"] == "DURATION"


def test_a_setting_that_a_resumed_run_changes_is_a_tag_of_mlflow(tmp_path: Path) -> None:
    train(made("mlflow"), tmp_path / "a", at_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert remote(tmp_path / "a")[0].info.status == "KILLED"
    changed = parts(*GROWING, "logger=[mlflow]", "train.clip=0.5")
    resume(changed, tmp_path / "a")
    run, _ = remote(tmp_path / "a")
    assert run.data.params["train.clip"] == "0.0" and run.data.tags["changed.train.clip"] == "0.5"


# settings


def test_the_settings_of_wandb_say_where_it_is_told(tmp_path: Path) -> None:
    told = ("project=growing", "entity=us", "group=widths", "tags=[a,b]")
    chosen = (f"logger.wandb.{each}" for each in told)
    train(parts("train.duration=1steps", "logger=[wandb]", *chosen), tmp_path / "a")
    (path,) = tmp_path.glob("a/wandb/offline-run-*/*.wandb")
    run = next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")
    assert (run.project, run.entity, run.run_group) == ("growing", "us", "widths")
    assert list(run.tags) == ["a", "b"] and run.display_name.endswith("/a")
    kept = {each.key: json.loads(each.value_json) for each in run.config.update}
    assert kept["model"]["width"] == 8 and kept["train"]["duration"] == "1steps"


def test_the_settings_of_mlflow_say_where_it_is_told(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = (tmp_path / "store").as_uri()
    chosen = (f"logger.mlflow.uri={uri}", "logger.mlflow.experiment=growing")
    for name in ("a", "b"):
        train(parts("train.duration=1steps", "logger=[mlflow]", *chosen), tmp_path / name)
    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name("growing").experiment_id
    names = {run.info.run_name.split("/")[-1] for run in client.search_runs([place])}
    assert names == {"a", "b"} and not (tmp_path / "a" / "mlruns").exists()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("wandb.mode=dryrun", "logger.wandb.mode must be offline or online, got 'dryrun'."),
        ("wandb.project=' '", "logger.wandb.project must be a name, got ' '. Try progtrain."),
        ("mlflow.experiment=' '", "logger.mlflow.experiment must be a name, got ' '."),
        ("mlflow.uri=' '", "logger.mlflow.uri must be the address of a tracking store, or null,"
                           " got ' '. Try null."),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_logger_is_told(setting: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build.build(config(f"logger=[{setting.split('.')[0]}]", f"logger.{setting}"))
    assert str(caught.value) == told


# failing


class Hearing:
    """A logger and its tracker that keep what they are told; `at` is the call that fails."""

    forgets = False

    def __init__(self, at: int | None = None) -> None:
        self.at, self.calls = at, 0
        self.numbers: list[tuple[int, str, float]] = []
        self.texts: list[tuple[int, str, str]] = []
        self.result: Result | None = None

    def where(self, book: Book) -> str:
        return ""

    def open(self, book: Book) -> Hearing:
        self._fail()
        return self

    def log(self, step: int, values: Mapping[str, float], texts: Mapping[str, str]) -> None:
        self._fail()
        self.numbers += [(step, name, value) for name, value in values.items()]
        self.texts += [(step, name, text) for name, text in texts.items()]

    def finish(self, result: Result) -> None:
        self._fail()
        self.result = result

    def _fail(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(28, "No space left on device")


def fails(run: object, text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize("at", [1, 2, 4, 8])
def test_a_tracker_that_fails_ends_no_run_and_is_told_once(at: int, tmp_path: Path) -> None:
    deaf = Hearing(at)
    finished = train(replace(made(), loggers={"fake": deaf}), tmp_path)
    notes = [note for note in finished.spy.notes if note.startswith("logger fake")]
    assert notes == [
        "logger fake has failed and is told nothing more: [Errno 28] No space left on device"
    ]
    assert deaf.calls == at and finished.run.clock.step == 24


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    heard = Hearing()
    tracked = Tracked("fake", heard, Book(tmp_path, {}), fails)
    run = a_run(0)
    tracked.started(run, [])
    tracked.grew(run, replace(an_event(run), metric_after=float("nan"), metric_before=None))
    names = {name for _, name, _ in heard.numbers}
    assert "growth/params" in names and not names & {"growth/metric_after", "growth/metric_before"}


@pytest.mark.parametrize("package", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_told_before_the_start(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = loggers.find_spec
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(ConfigError) as caught:
        build.build(config(f"logger=[{package}]"))
    told = f"logger={package} needs the package {package}: pip install 'progtrain[{package}]'"
    assert str(caught.value) == told


def test_being_online_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="set WANDB_API_KEY or run `wandb login`"):
        build.build(config("logger=[wandb]", "logger.wandb.mode=online"))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    build.build(config("logger=[wandb]", "logger.wandb.mode=online"))


def test_settings_are_flat_and_masked() -> None:
    nested = {"a": {"b": 1, "c": [1, 2], "d": None, "e": {}}, "key": "***"}
    assert dict(flat(nested)) == {"a.b": 1, "a.c": "[1, 2]", "a.d": "null", "a.e": "{}",
                                  "key": "***"}  # fmt: skip


# the real command

LONG = 240  # seconds: a run beside three trackers takes 20, on a busy machine some times as long


def command(directory: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    tiny = ["data=synthetic", "data.samples=65", "data.shape=[1,4,4]", "model=mlp",
            "model.width=8", "train.batch_size=8", "hardware=cpu", "hardware.threads=1",
            f"hydra.run.dir={directory}"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    env.pop("WANDB_CACHE_DIR", None)
    return subprocess.Popen(
        [sys.executable, "-m", "progtrain", *tiny, *words],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_code_beside_trackers(
    number: int, code: int, tmp_path: Path
) -> None:
    process = command(tmp_path / "a", "logger=[tensorboard,mlflow,wandb]",
                      "train.duration=1000000steps", "train.evaluate_every=50steps",
                      "checkpoint.every=50steps", HOME=str(tmp_path / "home"))  # fmt: skip
    while not list(tmp_path.glob("a/checkpoints/step_*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    begun = time.monotonic()
    _, stderr = process.communicate(timeout=LONG)
    assert process.returncode == code, stderr
    assert time.monotonic() - begun < 60  # seconds where the machine is busy
    assert remote(tmp_path / "a")[0].info.status == "KILLED"
    assert not list((tmp_path / "home").rglob("*")), "written outside of the run"


@pytest.mark.slow
def test_a_run_that_diverges_ends_with_its_code_beside_trackers(tmp_path: Path) -> None:
    process = command(tmp_path / "a", "logger=[tensorboard,mlflow,wandb]", "optimizer=sgd",
                      "optimizer.lr=9e5", "train.duration=50steps")  # fmt: skip
    _, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 3, stderr
    assert remote(tmp_path / "a")[0].info.status == "FAILED"


@pytest.mark.slow
def test_a_store_that_does_not_answer_costs_seconds_and_no_run(tmp_path: Path) -> None:
    begun = time.monotonic()
    process = command(tmp_path / "a", "logger=mlflow", "logger.mlflow.uri=http://127.0.0.1:9",
                      "train.duration=24steps")  # fmt: skip
    stdout, stderr = process.communicate(timeout=LONG)
    assert process.returncode == 0, stderr
    assert stdout.count("logger mlflow has failed and is told nothing more") == 1
    assert time.monotonic() - begun < 120  # to try as often as MLflow would takes longer
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "done"


# the table


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def as_table(directory: Path) -> list[dict[str, str]]:
    """What the table must be, from the rows."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        {name: "" if row.get(name) is None else str(row[name]) for name in names} for row in rows
    ]


def test_the_table_is_that_of_the_rows(told: Finished, again: Finished) -> None:
    assert len(table(told.directory)) == len(ROWS)
    for finished in (told, again):
        assert table(finished.directory) == as_table(finished.directory)


def test_columns_grow_with_the_rows_and_go_with_them(tmp_path: Path) -> None:
    run = a_run(1)
    with Files(tmp_path, {}, []) as files:
        files.observed(run, Observation(run.clock.now, 0.1, {"val/loss": float("nan")}))
        sizes = files.sizes()
        late = {"val/loss": 0.5, "val/second/loss": 0.25}
        files.observed(a_run(2), Observation(a_run(2).clock.now, 0.2, late))
        files.observed(a_run(3), Observation(a_run(3).clock.now, 0.3, {"val/loss": 0.125}))
        first, second, third = table(tmp_path)
        assert table(tmp_path) == as_table(tmp_path)
    assert (first["val/loss"], first["val/second/loss"]) == ("", "")
    assert (second["val/second/loss"], third["val/second/loss"]) == ("0.25", "")
    (tmp_path / "metrics.csv").write_text("step,epoch\n1,0.")  # cut off by a kill
    truncate(tmp_path, sizes)
    with Files(tmp_path, {}, []):
        assert table(tmp_path) == as_table(tmp_path) and len(table(tmp_path)) == 1
    assert not list(tmp_path.glob("*.tmp"))
