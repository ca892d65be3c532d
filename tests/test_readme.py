"""Every command that README and the extending guide show is run, shortened by a few settings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from image_kit import photos

ROOT = Path(__file__).parent.parent
SHORT = ["train.duration=6epochs", "checkpoint.every=50%", "hardware.threads=1"]
ANSWERS = ("--help", "--cfg")


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _commands(page: str) -> list[str]:
    return [line for block in _blocks(page, "bash") for line in block.splitlines() if line.strip()]


PROGTRAIN = [c for c in _commands("README.md") if c.startswith("progtrain ")]


def _run(
    arguments: list[str], cwd: Path, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    given = [a for a in arguments if a.split("=")[0] != "train.duration"]
    short = [] if any(a in ANSWERS for a in arguments) else SHORT
    size = ["model.width=4"] if "-m" in arguments else []
    return subprocess.run(
        [sys.executable, "-m", "progtrain", *given, *short, *size],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **({"PYTHONPATH": path} if path else {})},
    )


def test_the_readme_shows_commands() -> None:
    assert len(PROGTRAIN) >= 6
    assert "make demo" in _commands("README.md")


@pytest.mark.slow
@pytest.mark.parametrize("command", PROGTRAIN)
def test_every_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    done = _run(shlex.split(command)[1:], tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_make_targets_of_the_readme_exist_and_the_demo_is_the_main_job() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)`", text)) | {"demo"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:.*##", makefile, flags=re.MULTILINE), target
    main_job = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", makefile, flags=re.MULTILINE)
    assert main_job is not None
    assert f"`{main_job.group(1)}`" in text


def test_every_file_that_the_docs_link_to_exists() -> None:
    for page in ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def _write_the_guides_files(folder: Path) -> None:
    (code,) = _blocks("docs/extending.md", "python")
    (config,) = _blocks("docs/extending.md", "yaml")
    (folder / "my_parts.py").write_text(code)
    (folder / "my_conf" / "warmup").mkdir(parents=True)
    (folder / "my_conf" / "warmup" / "square_ramp.yaml").write_text(config)


def test_a_warmup_of_the_users_own_works_as_the_guide_says(tmp_path: Path) -> None:
    _write_the_guides_files(tmp_path)
    (command,) = _commands("docs/extending.md")
    done = _run([*shlex.split(command)[1:], "model.width=4"], tmp_path)
    assert done.returncode == 0, done.stderr
    (events,) = tmp_path.glob("outputs/*/*/events.jsonl")
    assert '"warmup"' in events.read_text()
    assert "plugins=[my_parts]" in done.stdout


def test_the_guides_plugin_is_refused_without_naming_its_package(tmp_path: Path) -> None:
    _write_the_guides_files(tmp_path)
    done = _run(["--config-dir", "my_conf", "warmup=square_ramp"], tmp_path)
    assert done.returncode == 2
    assert "plugins=[my_parts]" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_every_test_that_the_features_page_names_exists() -> None:
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:tests/)?((?:test_|smoke)\w*\.py)(?:::(\w+))?`", page)
    assert len(named) > 30
    for file, test in named:
        code = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in code, f"{file}::{test}"


@pytest.mark.slow
def test_every_command_of_the_features_page_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from progtrain import cli

    photos(tmp_path / "photos", 1)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    commands = [
        c
        for c in re.findall(r"`(progtrain[^`]*)`", page)
        if not re.search(r"resume=|checkpoint=outputs|task=compare", c)
    ]
    assert len(commands) > 25
    for command in dict.fromkeys(commands):
        arguments = [a for a in shlex.split(command)[1:] if a != "-m"]
        sweeps = "-m" in command
        given = [a.split(",")[0] for a in arguments] if sweeps else arguments
        assert cli.run([*given, "--cfg", "job"]) == 0, command
