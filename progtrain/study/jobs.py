"""The jobs of a study as they lie on disk: where each is, what it has come to, who holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from progtrain.checkpoint.lock import holder


@dataclass(frozen=True)
class Job:
    """One arm with one seed."""

    arm: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its directory inside that of the study."""
        return f"{self.arm}/seed_{self.seed}"

    def status(self, study: Path) -> str:
        """done, running, failed, interrupted; or waiting: it has not begun, or was killed."""
        if holder(study / self.name) is not None:
            return "running"
        try:
            told = json.loads((study / self.name / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "waiting"
        return str(told.get("status", "waiting")) if isinstance(told, dict) else "waiting"


def jobs(arms: Sequence[tuple[str, tuple[str, ...]]], seeds: Sequence[int]) -> list[Job]:
    """Every arm with every seed; all arms of a seed before the next, so partial results balance."""
    return [
        Job(name, seed, (*(t for t in overrides if not t.startswith("seed=")), f"seed={seed}"))
        for seed in seeds
        for name, overrides in arms
    ]


def left(every: Sequence[Job], study: Path, again: bool) -> list[Job]:
    """What is neither done nor held by another process; what has failed only if `again`."""
    over = ("done", "running") if again else ("done", "running", "failed")
    return [job for job in every if job.status(study) not in over]
