"""Every option of every group once, on budgets of seconds: `make smoke`.

Each line is a multirun of the real command; a job that fails makes it exit non-zero.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

TINY = (
    "data=synthetic data.samples=128 train.batch_size=32 train.duration=24steps "
    "train.evaluate_every=8steps checkpoint.every=50% hardware.threads=1"
)
SMALL_CNN = "model=cnn model.width=4 model.depth=2"
GROWING = "growth=schedule growth.start.width=0.5"

COMMANDS = (
    f"growth=glob(*) warmup=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} model=glob(*) optimizer=glob(*) model.width=8 {TINY}",
    f"{GROWING} widen=glob(*) deepen=glob(*) warmup=none {SMALL_CNN} {TINY}",
    f"{GROWING} scheduler=glob(*) at_growth=glob(*) {SMALL_CNN} {TINY}",
    f"growth=budget growth/choice=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} hardware=auto,cpu hardware.precision=fp32,bf16 {SMALL_CNN} {TINY}",
    f"{GROWING} train.accumulate=1,2 train.clip=0,1 {SMALL_CNN} {TINY}",
)


def run(command: str, folder: str) -> float:
    """Seconds that one multirun took; exits with its log where it failed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "progtrain", "-m", *command.split(), f"hydra.sweep.dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
        sys.exit(f"failed ({done.returncode}): progtrain -m {command}")
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(COMMANDS):
            seconds = run(command, f"{folder}/{number}")
            jobs = len([e for e in os.scandir(f"{folder}/{number}") if e.is_dir()])
            print(f"ok {jobs:3} jobs {seconds:6.1f} s  progtrain -m {command}", flush=True)


if __name__ == "__main__":
    main()
