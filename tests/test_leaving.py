"""One of several processes ends at once, and gives back what multiprocessing would warn of."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAD = """
import multiprocessing, time
from multiprocessing.util import Finalize
from progtrain.command_line import leaving
"""


def ended(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [0, 5])
def test_a_semaphore_is_given_back(code: int) -> None:
    done = ended(
        "kept = multiprocessing.get_context('spawn').Semaphore()\n"
        f"print('said')\nleaving.leave({code})"
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\n", "")


def test_what_does_not_come_to_an_end_is_not_waited_for() -> None:
    begun = time.monotonic()
    slow = "leaving._GIVING_BACK = 0.1\nFinalize(None, time.sleep, (300,), exitpriority=1)\n"
    assert ended(f"{slow}leaving.leave(0)").returncode == 0
    assert time.monotonic() - begun < 60


def test_nothing_else_of_an_interpreters_end_is_done() -> None:
    done = ended("import atexit\natexit.register(print, 'never')\nleaving.leave(0)")
    assert done.stdout == ""
