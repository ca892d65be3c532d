"""A multirun compared: every job, what varies, the spread, and how far to trust it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from progtrain.report.files import write_failure
from progtrain.report.sweep import print_comparison


def a_job(folder: Path, metric: float | None, *overrides: str, **more: object) -> None:
    seed = dict(o.split("=") for o in overrides).get("seed", "0")
    result = {
        "status": "done", "metric_name": "val/accuracy", "mode": "max", "metric": metric,
        "best_metric": metric, "growths": 2, "params": 1578, "flops": 3.2e12, "seconds": 72.0,
        "seed": int(seed), "choices": {"growth": "none", "model": "mlp"},
        "overrides": list(overrides),
    }  # fmt: skip
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result | more))


def a_sweep(folder: Path) -> Path:
    """growth x seed; the job that would have won did not finish, another left nothing."""
    for number, (growth, seed, metric) in enumerate(
        [("none", 0, 0.80), ("none", 1, 0.82), ("plateau", 0, 0.90), ("plateau", 1, 0.94)]
    ):
        a_job(folder / str(number), metric, f"growth={growth}", f"seed={seed}", "hydra.verbose=1")
    a_job(folder / "10", 0.99, "growth=none", "seed=2", status="interrupted")
    (folder / "9" / ".hydra").mkdir(parents=True)
    (folder / "9" / ".hydra" / "overrides.yaml").write_text("- growth=plateau\n- seed=2\n")
    (folder / "8").mkdir()
    write_failure(folder / "8", {}, ["growth=budget", "seed=0"], "growth.max_params\nmust be >= 1")
    (folder / "logs").mkdir()
    return folder


def compared(folder: Path, width: int | None) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width or 1000, force_terminal=width is not None)
    print_comparison(folder, console)
    return file.getvalue()


def test_sweep_table_shows_what_varies_and_every_outcome(tmp_path: Path) -> None:
    text = compared(a_sweep(tmp_path), None)
    table, over_seeds = text.split("\n\n")[0], text.split("\n\n")[1]
    lines = table.splitlines()
    header = next(line for line in lines if "growth" in line).split()
    assert header == [
        "job", "growth", "seed", "val/accuracy", "best", "growths", "params", "FLOPs", "seconds",
        "status",
    ]  # fmt: skip
    found = [line.split()[0] for line in lines if line[:1].isdigit()]
    assert found == ["0", "1", "2", "3", "8", "9", "10"]
    won = next(line for line in lines if line.startswith("3"))
    row = "3 * plateau 1 0.9400 0.9400 2 1,578 3.2 TFLOP 1 m 12 s done"
    assert won.split() == row.split()
    assert "*" not in "".join(line for line in lines if line[:1].isdigit() and line is not won)
    assert "none 0.8100 ± 0.0141 2 1" in " ".join(over_seeds.split())
    assert "plateau 0.9200 ± 0.0283 2 1" in " ".join(over_seeds.split())
    assert "budget – 0 1" in " ".join(over_seeds.split())
    assert "job 8 failed: growth.max_params must be >= 1" in text
    assert (
        "job 9 failed: It left no result.json" in text
        and "job 10 interrupted: its numbers are left out." in text
    )
    assert "2 seeds per setting" in text and "up to 0.0283) means nothing" in text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_sweep_table_fits_the_terminal_and_highlights_the_best(tmp_path: Path, width: int) -> None:
    text = compared(a_sweep(tmp_path), width)
    *told, json_file, csv_file, page = Text.from_ansi(text).plain.splitlines()
    assert json_file == f"written: {tmp_path}/comparison.json"
    assert csv_file == f"written: {tmp_path}/comparison.csv"
    assert page == f"compare: progtrain task=compare runs={tmp_path}"
    lines = [line for line in told if not line.startswith(("job", "2 seeds"))]
    assert max(map(len, lines)) <= width
    assert ("Left out for width" in text) == (width < 140)
    assert any("\x1b[1;32m3 *" in line for line in text.splitlines())


def test_one_seed_is_called_what_it_is(tmp_path: Path) -> None:
    a_job(tmp_path / "0", 0.8, "growth=none")
    a_job(tmp_path / "1", 0.9, "growth=plateau")
    text = compared(tmp_path, None)
    assert "One seed per setting" in text and "±" not in text


def test_lower_wins_where_less_is_better_and_nobody_where_metrics_differ(tmp_path: Path) -> None:
    a_job(tmp_path / "0", 0.8, "growth=none", mode="min")
    a_job(tmp_path / "1", 0.9, "growth=plateau", mode="min")
    assert "\n0 * " in compared(tmp_path, None)
    a_job(tmp_path / "2", 0.1, "growth=budget", mode="min", metric_name="val/loss")
    assert "*" not in compared(tmp_path, None)


def test_comparison_files_hold_the_whole_table(tmp_path: Path) -> None:
    compared(a_sweep(tmp_path), 60)
    with (tmp_path / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["job"] for row in table] == ["0", "1", "2", "3", "8", "9", "10"]
    assert table[3]["growth"] == "plateau" and table[3]["flops"] == "3200000000000.0"
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert [job["is_best"] for job in told["jobs"]] == [False] * 3 + [True] + [False] * 3
    assert told["varying"] == ["growth", "seed"] and "2 seeds" in told["caution"]
    assert told["over_seeds"][0]["settings"] == {"growth": "none"}


def test_sweep_of_nothing_or_of_rubbish_is_told(tmp_path: Path) -> None:
    assert "No job finished" in compared(tmp_path, None)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "result.json").write_text('{"metric": 0.')
    assert "job 0 failed: Its result.json is not readable." in compared(tmp_path, None)


def test_comparing_imports_no_torch() -> None:
    code = "import progtrain.report.sweep, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_has_the_columns_that_the_jobs_ask_for(tmp_path: Path) -> None:
    """The primary metric of all is there already; what a job did not measure is left open."""
    asked = ["val/accuracy", "val/macro_f1", "test/loss"]
    for number, (growth, f1) in enumerate([("none", 0.5), ("none", 0.6), ("plateau", 0.7)]):
        told = {"metrics": {"val/macro_f1": f1, "val/loss": 9.0}, "columns": asked}
        told |= {"test": {"test/loss": 0.25 * number}} if number else {}
        a_job(tmp_path / str(number), 0.8, f"growth={growth}", f"seed={number}", **told)
    jobs, over_seeds, *_ = compared(tmp_path, None).split("\n\n")
    header, first, second = (jobs.splitlines()[line] for line in (0, 2, 3))
    assert header.split()[:7] == [
        "job",
        "growth",
        "seed",
        "val/accuracy",
        "best",
        "val/macro_f1",
        "test/loss",
    ]
    assert first.split()[6:8] == ["0.5000", "–"] and second.split()[6:8] == ["0.6000", "0.2500"]
    assert "val/macro_f1, mean ± std" in over_seeds and "val/accuracy, mean" not in over_seeds
    assert "0.5500 ± 0.0707" in over_seeds and "0.7000 ± –" in over_seeds
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["val/macro_f1"] for row in rows] == ["0.5", "0.6", "0.7"]
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert told["jobs"][2]["columns"] == {
        "val/accuracy": None,
        "val/macro_f1": 0.7,
        "test/loss": 0.5,
    }
    assert told["over_seeds"][1]["columns"]["val/macro_f1"] == [0.7, None]
