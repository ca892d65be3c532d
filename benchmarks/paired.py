"""Arms × seeds as runs of the command, several at once, and what they come to beside each other.

Runs of one seed share data, order and start, so differences between arms are paired. Jobs that
are done are not repeated; what was interrupted goes on.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Student's t for a two-sided 95 % interval, by number of pairs
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class Job:
    """One run: an arm with a seed."""

    arm: str
    seed: int
    overrides: tuple[str, ...]

    def folder(self, out: Path) -> Path:
        return out / re.sub(r"[^A-Za-z0-9]+", "_", self.arm).strip("_") / f"seed_{self.seed}"


def result(folder: Path) -> dict[str, Any] | None:
    """The `result.json` of a run that is done."""
    path = folder / "result.json"
    told = json.loads(path.read_text()) if path.is_file() else {}
    return told if told.get("status") == "done" else None


def train(job: Job, out: Path, settings: Sequence[str], more: Sequence[str]) -> None:
    """Run a job, unless it is done; `more` wins over what the arm says."""
    folder = job.folder(out)
    if result(folder):
        return
    words = [*settings, *job.overrides, f"seed={job.seed}", *more]
    command = [sys.executable, "-m", "progtrain", *words, f"hydra.run.dir={folder}", "resume=auto"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"failed: {' '.join(command)}\n{done.stdout[-500:]}{done.stderr[-1500:]}", flush=True)


def train_all(
    jobs: Sequence[Job], out: Path, settings: Sequence[str], more: Sequence[str], at_once: int
) -> None:
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda job: train(job, out, settings, more), jobs))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation over seeds."""
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def difference(found: Mapping[int, float], reference: Mapping[int, float], digits: int = 2) -> str:
    """Mean paired difference with its 95 % interval; values by seed."""
    both = sorted(found.keys() & reference.keys())
    paired = [found[seed] - reference[seed] for seed in both]
    if len(paired) < 2 or not any(paired):
        return "–"
    half = T95.get(len(paired), 1.96) * statistics.stdev(paired) / len(paired) ** 0.5
    return f"{statistics.mean(paired):+.{digits}f} ± {half:.{digits}f}"
