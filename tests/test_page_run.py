"""The page of one run: out of its files, whatever state they are in, and at the end of a run."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_kit import at_step, parts, train
from test_page import HOSTILE, SVG, Page, drawing

from progtrain import cli
from progtrain.page import run as page
from progtrain.page.past import Past, read, typed
from progtrain.page.run_charts import charts

WHEN = {"epoch": 1.0, "samples": 8, "flops": 1e6, "seconds": 1.0}
GROWTH = {
    "kind": "growth",
    **WHEN,
    "step": 40,
    "index": 0,
    "stage": "deeper",
    "phase": "warmup",
    "alpha": 0.0,
    "cause": "flat(accuracy, 2)",
    "what": "+1 block in blocks",
    "params_before": 1200,
    "params_after": 4800,
    "flops_before": 1e4,
    "flops_after": 5e4,
    "output_change": 0.0,
    "probe_loss_before": 1.5,
    "probe_loss_after": 1.5,
    "metric_before": 0.61,
    "metric_after": 0.62,
    "growth_flops": 7e6,
    "growth_seconds": 0.25,
}


def stored(folder: Path, **result: Any) -> Path:
    """Files of a run that grew twice, the second time in vain."""
    folder.mkdir(parents=True)
    started = {"kind": "started", **WHEN, "step": 0, "params": 1200, "flops_per_sample": 1e4}
    second = GROWTH | {"index": 1, "step": 70, "stage": "wider", "params_before": 4800}
    second |= {"params_after": 9600, "what": "blocks 8 → 16"}
    events = [
        started | {"seed": 3, "metric_name": "val/accuracy", "mode": "max"},
        GROWTH,
        {"kind": "phase", **WHEN, "step": 60, "index": 0, "phase": "integrated", "alpha": 1.0},
        second,
        {"kind": "finding", **WHEN, "step": 75, "text": "shock: the loss has doubled"},
        {"kind": "note", **WHEN, "step": 80, "text": "growth is over"},
    ]
    lives = [
        {
            "index": 0,
            "phase": "integrated",
            "alpha": 1.0,
            "recovery_steps": 12,
            "contribution": 0.1,
        },
        {"index": 1, "phase": "rolled back", "undone": "keep_if", "lost_flops": 5e6, "alpha": 0.5},
    ]
    rows = [
        {"step": s, **WHEN, "params": 1200 if s <= 40 else 4800, "val/accuracy": s / 200}
        | {"train/loss": 2 - s / 100, "val/loss": None if s == 20 else 2.1 - s / 100}
        | {"learning_rate/adamw": 1e-3, "gradients/total": 1.0 + s}
        for s in range(10, 101, 10)
    ]
    told = {
        "status": "done",
        "metric_name": "val/accuracy",
        "mode": "max",
        "metric": 0.5,
        "best_metric": 0.55,
        "metrics": {"val/accuracy": 0.5, "val/loss": 1.1},
        "params_start": 1200,
        "params": 4800,
        "flops": 3.2e9,
        "seconds": 71.0,
        "steps": 100,
        "epochs": 8.0,
        "growth_lives": lives,
        "lost_flops": 5e6,
        "stop": "DURATION",
        "seed": 3,
        "choices": {"model": "cnn", "growth": "plateau", "mix": "none"},
        "overrides": ["growth=plateau", "logger.wandb.api_key=abc123"],
    }
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "result.json").write_text(json.dumps(told | result))
    (folder / "config.yaml").write_text("seed: 3\nmodel:\n  width: 16\n  norm: null\n")
    return folder


def seen(folder: Path) -> Page:
    return Page(page.write_run(folder).read_text(encoding="utf-8"))


def test_page_tells_the_run(tmp_path: Path) -> None:
    found = seen(stored(tmp_path / "run"))
    words = " ".join(" ".join(found.words).split())
    assert "val/accuracy 0.5000 at the end, 0.5500 at best. 1 growth stayed, 1 undone." in words
    assert "1,200 → 4,800" in words and "3.2 GFLOP" in words and "1 m 11 s" in words
    first, second = [row for row in found.rows if len(row) == 14][1:]
    assert first[:5] == ["1", "deeper", "40", "flat(accuracy, 2)", "1,200 → 4,800"]
    assert first[6] == "0.6100 → 0.6200" and first[9:12] == ["12 steps", "+0.1", "7 MFLOP"]
    assert first[13] == "integrated" and second[13] == "undone: keep_if, 5 MFLOP lost"
    assert "shock: the loss has doubled" in words and "growth is over" in words
    assert ["model.width", "16"] in found.rows and ["model.norm", "null"] in found.rows
    assert "abc123" not in found.text and "logger.wandb.api_key=***" in words
    assert "+1 block in blocks" in words and "mix" not in words
    assert "://" not in found.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert len(set(found.ids)) == len(found.ids)


def test_charts_hold_the_rows(tmp_path: Path) -> None:
    past = read(stored(tmp_path / "run"))
    by_name = {chart.name: chart for chart in charts(past)}
    assert {*by_name} == {"metric", "loss", "params", "alpha", "rate", "norm"}
    assert by_name["metric"].lines[0].points[0] == (10.0, 0.05)
    assert [line.name for line in by_name["loss"].lines] == ["train/loss", "val/loss"]
    assert 20.0 not in dict(by_name["loss"].lines[1].points)
    sizes = dict(by_name["params"].lines[0].points)
    assert (sizes[0.0], sizes[40.0], sizes[50.0]) == (1200, 4800, 4800)
    alphas = [line.points for line in by_name["alpha"].lines]
    assert alphas == [((40, 0), (60, 1), (100, 1)), ((70, 0), (100, 0.5))]
    assert [rule.at for rule in by_name["metric"].rules] == [40, 70]
    drawn = drawing(Page((page.write_run(past.folder)).read_text()), "params-wide")
    assert [e for e in drawn.iter(f"{SVG}path") if e.get("class") == "line"]


def test_whatever_is_missing(tmp_path: Path) -> None:
    for name in ("result.json", "metrics.jsonl", "events.jsonl", "config.yaml"):
        folder = stored(tmp_path / name)
        (folder / name).unlink()
        assert "Settings" in "".join(seen(folder).words)
    folder = stored(tmp_path / "cut")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "val/accu')
    (folder / "result.json").write_text("[")
    assert dict(read(folder).series("val/accuracy"))[100.0] == 0.5
    found = seen(folder)
    assert "not over" in "".join(found.words) and found.drawings
    with pytest.raises(FileNotFoundError, match=r"holds no result\.json"):
        page.write_run(tmp_path)
    assert not (tmp_path / page.NAME).exists()


def test_hostile_words_are_text(tmp_path: Path) -> None:
    folder = stored(
        tmp_path / "run",
        status="failed",
        error=HOSTILE,
        choices={HOSTILE: HOSTILE},
        metrics={HOSTILE: 1},
    )
    with (folder / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": HOSTILE, "step": 90, "text": HOSTILE}) + "\n")
        bad = GROWTH | {"index": 2, "step": 90, "stage": HOSTILE, "what": HOSTILE, "cause": HOSTILE}
        file.write(json.dumps(bad) + "\n")
    found = seen(folder)
    assert found.tags.count("script") == 1 and "<script>alert" not in found.text
    assert len(found.drawings) == 12


@pytest.mark.parametrize(
    "word",
    ["logger.wandb.api_key=x1y2", "+hub.token=x1y2", "db.password=x1y2", "my.secret_id=x1y2"],
)
def test_typed_secrets_are_masked(tmp_path: Path, word: str) -> None:
    past = Past(tmp_path, {"overrides": [word, "data.tokens=bpe"]}, (), (), ())
    assert "x1y2" not in typed(past) and typed(past).endswith("=*** data.tokens=bpe")


@pytest.mark.slow
def test_a_run_writes_its_page_and_names_it_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(parts("report.page=true", "growth=sequential"), tmp_path / "run")
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {tmp_path}/run/{page.NAME}"
    found = Page((tmp_path / "run" / page.NAME).read_text(encoding="utf-8"))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    words = " ".join(found.words)
    assert f"{result['params']:,}" in words and "val/accuracy-wide" not in found.ids
    assert len([row for row in found.rows if len(row) == 14]) == 1 + len(result["growth_lives"])
    train(parts(), tmp_path / "bare")
    assert not (tmp_path / "bare" / page.NAME).exists() and not capsys.readouterr().out


def test_a_run_that_is_interrupted_leaves_a_page_that_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = at_step(7, lambda: signal.raise_signal(signal.SIGINT))
    made = parts("report.page=true", "growth=schedule", "checkpoint.every=25%")
    assert train(made, tmp_path, stopping).exit_code == 130
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {tmp_path}/{page.NAME}"
    told = (tmp_path / page.NAME).read_text(encoding="utf-8")
    assert ">interrupted</span>" in told and "so far," in told and "at the end," not in told
    train(replace(made, resume=True), tmp_path)
    told = (tmp_path / page.NAME).read_text(encoding="utf-8")
    assert ">done</span>" in told and "at the end," in told


@pytest.mark.slow
def test_a_run_that_fails_leaves_a_page_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["progtrain"])
    words = ["data=synthetic", "data.samples=64", "model=mlp", "train.duration=20steps"]
    words += [
        "train.batch_size=32",
        "optimizer=sgd",
        "optimizer.lr=9e5",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    assert cli.run(words) == 3
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {tmp_path}/run/{page.NAME}"
    told = " ".join(Page((tmp_path / "run" / page.NAME).read_text(encoding="utf-8")).words)
    assert "failed" in told and "is not finite" in told


@pytest.mark.slow
def test_a_page_that_fails_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: Path) -> Path:
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(page, "write_run", full)
    train(parts("report.page=true"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "done"
    told = [line for line in capsys.readouterr().out.splitlines() if "report.html" in line]
    assert len(told) == 1 and "No space left on device" in told[0] and "page: " not in told[0]
