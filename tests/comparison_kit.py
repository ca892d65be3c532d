"""Folders of runs as training leaves them, written by hand from a frontier that is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import intervals

BUDGETS, FULL, loss_at = intervals.BUDGETS, intervals.FULL, intervals.loss_at


@dataclass
class Fake:
    """A run; `more` replaces what its files would tell."""

    loss: float
    flops: float
    seed: int | None = 0
    params: float = 1000.0
    growth: str = "none"
    duration: str = "100steps"
    settings: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    config: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    more: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    started: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    metric: str = "val/loss"
    mode: str = "min"
    rates: tuple[float, ...] = (1.0, 0.01)

    def write(self, folder: Path) -> Path:
        """All files of the run."""
        folder.mkdir(parents=True)
        overrides = [
            f"growth={self.growth}",
            f"train.duration={self.duration}",
            f"seed={self.seed}",
        ]
        overrides += [f"{name}={value}" for name, value in self.settings.items()]
        steps = int(self.duration.removesuffix("steps"))
        end = {"flops": self.flops, "seconds": self.flops / 1e10, "step": steps}
        result = {
            **{"status": "done", "metric_name": self.metric, "mode": self.mode},
            **{"metric": self.loss, "best_metric": self.loss, "params": self.params},
            **{"flops": end["flops"], "seconds": end["seconds"], "steps": steps},
            **{"growths": int(self.growth != "none"), "growth_lives": [], "stop": "DURATION"},
            **{"seed": self.seed, "choices": {"model": "cnn", "growth": self.growth}},
            **{"overrides": overrides, "measured": {"memory/peak_mib": 12.5}},
            **self.more,
        }
        (folder / "result.json").write_text(json.dumps(result))
        rows = [
            {key: value * share for key, value in end.items()}
            | {self.metric: self.loss / share, "learning_rate/adamw": rate}
            for share, rate in zip((0.5, 1.0), self.rates, strict=True)
        ]
        _lines(folder / "metrics.jsonl", rows)
        plan = [{"name": "start"}, {"name": "full"}][: 1 + (self.growth != "none")]
        first = {"kind": "started", "step": 0, "flops": 0.0, "plan": plan, **self.started}
        grown = {**rows[0], "kind": "growth", "index": 0, "stage": "full", "params_after": 1000}
        _lines(folder / "events.jsonl", [first, *([grown] if self.growth != "none" else [])])
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
        scheduler = {"_target_": "progtrain.schedulers.wsd.Wsd", "decay": "20%"}
        train = {"duration": self.duration, "batch_size": 32}
        config = {"train": train, "scheduler": scheduler, "data": {"seq": 8}, **self.config}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def world(
    place: Path, saved: float = 0.25, seeds: int = 5, noise: float = 0.002, **grown: Any
) -> Path:
    """Four budgets from scratch, a smaller size, and one grown arm that saves so much."""
    generator = np.random.default_rng(3)
    shared = generator.normal(0, 2 * noise, seeds)

    def runs(loss: float, flops: float, **more: Any) -> None:
        for seed in range(seeds):
            seen = loss + shared[seed] + generator.normal(0, noise)
            settings = {"seed": seed, **more}
            count = len(list(place.glob("*")))
            Fake(seen, flops, **settings).write(place / f"{count}")

    for share in BUDGETS:
        runs(loss_at(share * FULL), share * FULL, duration=f"{round(100 * share)}steps")
    small = {"settings": {"model.width": "2"}, "params": 400.0}
    runs(loss_at(0.6 * FULL) + 0.02, 0.6 * FULL, **small)
    cost = 0.6 * FULL
    runs(loss_at(cost / (1 - saved)), cost, **{"growth": "schedule", **grown})
    return place
