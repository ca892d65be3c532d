"""`task=compare runs=…` through the command line, on runs that were written by hand."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from comparison_kit import FULL, Fake, world

from progtrain import cli
from progtrain.page import comparison as page

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command in an empty directory; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv: cli.run([str(word) for word in argv])


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without plots, which take seconds."""
    monkeypatch.setattr(page, "write", lambda told, path: path.write_text(told.verdict))


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_the_table_the_verdict_and_the_files(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    place = world(Path("runs"))
    assert command("task=compare", "runs=runs") == 0
    shown = capsys.readouterr().out
    stored = json.loads((place / "comparison.json").read_text())
    assert stored["verdict"] in shown and "Growing paid" in stored["verdict"]
    assert stored["verdict"] in (place / "compare.html").read_text()
    files = "written: {0}/comparison.json", "page: {0}/compare.html"
    assert shown.splitlines()[-2:] == [line.format(place.absolute()) for line in files]
    assert not Path("outputs").exists()
    assert command("task=compare", "runs=runs", "compare.margin=0.5", "hydra.run.dir=here") == 0
    other = json.loads(Path("here/comparison.json").read_text())
    assert (other["margin"], other["arms"][-1]["not_worse"]) == (0.5, True)
    seeded = ("task=compare", "runs=runs", "hydra.run.dir=there", "compare.seed=1")
    assert command(*seeded, "compare.bootstrap=300") == 0
    there = json.loads(Path("there/comparison.json").read_text())
    assert there["arms"][-1]["saving"]["low"] != stored["arms"][-1]["saving"]["low"]
    assert there["arms"][-1]["saving"]["value"] == stored["arms"][-1]["saving"]["value"]


@pytest.mark.usefixtures("plain")
def test_lists_and_patterns_and_the_file_of_a_multirun_that_stays(command: Command) -> None:
    world(Path("all/sweep"))
    Path("all/sweep/comparison.json").write_text('{"jobs": []}')
    assert command("task=compare", "runs=all/sweep") == 0
    assert json.loads(Path("all/sweep/comparison.json").read_text()) == {"jobs": []}
    assert len(json.loads(Path("all/sweep/compare.json").read_text())["arms"]) == 6
    assert command("task=compare", "runs=all/sweep/1?") == 0  # runs 10 to 19
    assert command("task=compare", "runs=[all/sweep/1,all/sweep/2]", "hydra.run.dir=two") == 0
    (arm,) = json.loads(Path("two/comparison.json").read_text())["arms"]
    assert len(arm["runs"]) == 2


@pytest.mark.slow
def test_comparing_imports_no_torch_and_writes_the_page(tmp_path: Path) -> None:
    world(tmp_path / "runs")
    code = "import sys\nfrom progtrain import cli\n"
    code += "end = cli.run(['task=compare', 'runs=runs'])\nassert 'torch' not in sys.modules\n"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(end)"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdict = json.loads((tmp_path / "runs" / "comparison.json").read_text())["verdict"]
    assert html.escape(verdict) in (tmp_path / "runs" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("task=compare",), "task=compare needs runs="),
        (("task=compare", "runs=nowhere"), "runs=nowhere is no directory"),
        (("task=compare", "runs=nowhere/*"), "runs=nowhere/* matches no directory"),
        (("task=compare", "runs=empty"), "runs=empty holds no run"),
        (("task=compare", "runs=mixed"), "were judged by different metrics"),
        (("task=compare", "runs=broken"), "Its result.json is not readable"),
        (("task=compare", "runs=a,b"), "For several folders: runs=[a,b]"),
        (("-m", "task=compare", "runs=mixed"), "leave -m out"),
        (("task=compare", "runs=mixed", "--cfg", "job"), "leave --cfg and --info out"),
        (("task=compare", "runs=mixed", "model=cnn"), "model has no meaning for task=compare"),
        (("task=compare", "runs=mixed", "compare.bootstrp=9"), "mean 'compare.bootstrap'"),
        (("task=compare", "runs=mixed", "compare.bootstrap=9"), "must be a whole number >= 200"),
        (("task=compare", "runs=mixed", "compare.margin=-1"), "compare.margin must be a finite"),
        (("task=compare", "runs=mixed", "compare.margin=x"), "compare.margin must be"),
        (("task=compare", "runs=mixed", "compare.seed=-1"), "compare.seed must be a whole number"),
        (("runs=mixed",), "runs= is for task=compare"),
        (("task=train", "runs=mixed"), "runs="),
        (("task=comparre", "runs=mixed"), "Did you mean 'compare'?"),
    ],
)
def test_what_cannot_be_compared_is_named(
    argv: tuple[str, ...], words: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Fake(1.0, FULL).write(Path("mixed/0"))
    Fake(1.0, FULL, metric="val/accuracy", mode="max").write(Path("mixed/1"))
    Fake(1.0, FULL).write(Path("broken/0"))
    Path("broken/0/result.json").write_text("{")
    assert command(*argv) == 2
    told = capsys.readouterr().err
    assert words in told, told
