"""progtrain works from a checkout and from a wheel; both are what a user installs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = [
    "data=synthetic",
    "data.samples=128",
    "model=mlp",
    "model.width=8",
    "train.duration=20steps",
    "growth=schedule",
    "hardware.threads=1",
]


def _run(python: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [python, "-m", "progtrain", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=clean,
    )


def test_the_editable_install_reads_the_configuration_of_the_checkout(tmp_path: Path) -> None:
    done = _run(sys.executable, *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/*/*/config.yaml"))
    shown = _run(sys.executable, "--info", "searchpath", cwd=tmp_path)
    assert str(ROOT / "conf") in shown.stdout


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with progtrain from a wheel and its dependencies, without the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    quiet = ["--disable-pip-version-check", "-w", str(folder)]
    subprocess.run([sys.executable, *build, *quiet, str(ROOT)], check=True, capture_output=True)
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "env")],
        check=True,
        capture_output=True,
    )
    site = next((folder / "env").glob("lib/python*/site-packages"))
    (wheel,) = folder.glob("progtrain-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # the dependencies, but not what .pth files there add: an editable progtrain is one of them
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "python"


@pytest.mark.package
def test_a_wheel_installed_elsewhere_carries_its_configuration_and_trains(
    wheel_python: Path, tmp_path: Path
) -> None:
    where = subprocess.run(
        [wheel_python, "-c", "import progtrain; print(progtrain.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert str(wheel_python.parent.parent) in where.stdout
    shown = _run(str(wheel_python), "--info", "searchpath", cwd=tmp_path)
    assert str(wheel_python.parent.parent) in shown.stdout
    assert str(ROOT / "conf") not in shown.stdout
    done = _run(str(wheel_python), *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/*/*/result.json"))


@pytest.mark.package
def test_the_wheel_holds_every_module_and_every_yaml(wheel_python: Path) -> None:
    site = next(wheel_python.parent.parent.glob("lib/python*/site-packages"))
    for pattern, source, target in (
        ("*.py", ROOT / "progtrain", site / "progtrain"),
        ("*.yaml", ROOT / "conf", site / "progtrain" / "conf"),
    ):
        wanted = {p.relative_to(source) for p in source.rglob(pattern)}
        assert wanted
        assert wanted <= {p.relative_to(target) for p in target.rglob(pattern)}
