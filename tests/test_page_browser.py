"""Pages in a real browser: a page tries itself where its address ends in #self-test."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_kit import many, three
from test_page_run import stored

from progtrain.page import comparison as page
from progtrain.page import picture
from progtrain.page.run import write_run

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="no chromium here (apt-get install chromium)"),
]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("save", "save_heat"):
        monkeypatch.setattr(picture, name, lambda *_: None)


def opened(path: Path, width: int, fragment: str = "#self-test") -> str:
    """The document as the browser has it after the script ran."""
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},900"),
        *("--virtual-time-budget=2000", "--dump-dom", f"{path.as_uri()}{fragment}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def outcome(document: str) -> str:
    found = re.search(r'data-self-test="([^"]*)"', document)
    return found[1] if found else "the script did not run"


@pytest.mark.parametrize("width", [1280, 500])  # a window is no narrower without a device to mimic
def test_tabs_legend_tooltip_and_sorting_work(tmp_path: Path, width: int) -> None:
    told = three()
    page.write(told, tmp_path / "page.html")
    # 3 axes and 4 forests; as many chips as arms; 8 charts, drawn for wide and narrow windows
    assert outcome(opened(tmp_path / "page.html", width)) == "passed 7 7 16"


def test_sixty_arms(tmp_path: Path) -> None:
    page.write(many(), tmp_path / "page.html")
    assert outcome(opened(tmp_path / "page.html", 1280)) == "passed 7 60 18"


def test_page_of_a_run(tmp_path: Path) -> None:
    path = write_run(stored(tmp_path / "run"))
    assert outcome(opened(path, 500)).startswith("passed 0 0 ")


def test_self_test_sees_a_broken_script(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    page.write(three(), path)
    whole = path.read_text(encoding="utf-8")
    for broken in (
        whole.replace('classList.toggle("off", !on)', 'classList.toggle("of", !on)'),
        whole.replace(".hidden = !chosen", ".hidden = chosen"),
    ):
        assert broken != whole
        path.write_text(broken, encoding="utf-8")
        assert outcome(opened(path, 1280)).startswith("failed: ")
    assert outcome(opened(path, 1280, "")) == "the script did not run"
