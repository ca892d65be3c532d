"""A run as files: `metrics.jsonl` (and `.csv`), `events.jsonl` and, at the stop, `result.json`.

A row is on disk when the call that made it returns. JSON is strict: what is not finite is null.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from progtrain.best import ranked
from progtrain.clock import Moment, Unit
from progtrain.report import units, words
from progtrain.report.cost import told
from progtrain.report.table import Table
from progtrain.run import StopReason

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.report.reporter import PlannedStage
    from progtrain.run import Event, Json, Observation, Run

METRICS, EVENTS, RESULT = "metrics.jsonl", "events.jsonl", "result.json"


class Files:
    """Writes rows under `directory`, after those that are there."""

    def __init__(
        self,
        directory: Path,
        choices: Mapping[str, str],
        overrides: Sequence[str],
        status: str = "done",  # of a run that comes to its end
        columns: Sequence[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.status = directory, status
        self.choices, self.overrides = dict(choices), list(overrides)
        self.columns = list(columns)  # metrics that the table of a multirun shows
        self._open = {name: (directory / name).open("ab") for name in (METRICS, EVENTS)}
        self._table = Table(directory / METRICS)
        self._measured: Json = {}  # of the result that is replaced: told again where nothing is new

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for file in (*self._open.values(), self._table):
            file.close()

    def sizes(self) -> dict[str, int]:
        """Bytes written so far, by file name; a checkpoint stores them for `truncate`."""
        return {name: (self.directory / name).stat().st_size for name in self._open}

    def started(self, run: Run, plan: list[PlannedStage]) -> None:
        # a resumed run has no result until it stops again
        self._measured = _measured(self.directory / RESULT)
        (self.directory / RESULT).unlink(missing_ok=True)
        stages: list[Json] = [
            {"name": s.name, "what": s.what, "params": s.params, "flops": s.flops} for s in plan
        ]
        self._event(
            run,
            "started",
            run.clock.now,
            {
                "resumed": run.clock.step > 0,
                "seed": run.seed,
                "params": run.params,
                "flops_per_sample": run.flops,
                "metric_name": run.metric,
                "mode": run.mode,
                "choices": {**self.choices},
                "overrides": [*self.overrides],
                "plan": stages,
            },
        )

    def stepped(self, run: Run, loss: Tensor) -> None:
        """Nothing: a row a step would cost a wait for the device a step."""

    def observed(self, run: Run, observation: Observation) -> None:
        row = _when(run, observation.moment) | {"epoch": observation.epoch, "params": run.params}
        row |= {f"view/{name}": getattr(run.view, name) for name in sorted(run.curriculum.sets)}
        row |= {k: v for k, v in observation.metrics.items() if k not in row}
        self._row(METRICS, row)
        self._table.add({name: _finite(value) for name, value in row.items()})

    def grew(self, run: Run, event: Event) -> None:
        grown: dict[str, Json] = {
            "cause": event.cause,
            "what": event.edit.describe(),
            "params_before": event.params_before,
            "params_after": event.params_after,
            "flops_before": event.flops_before,
            "flops_after": event.flops_after,
            "preservation_error": event.preservation_error,
            "output_change": event.output_change,
            "probe_loss_before": event.loss_before,
            "probe_loss_after": event.loss_after,
            "promised": event.promised,
            "learning_rate_factor": event.rate,
            "inherited": event.inherited.to_json() if event.inherited else None,
            "metric_name": run.metric,
            "metric_before": event.metric_before,
            "metric_after": event.metric_after,
            "growth_flops": event.cost,
            "growth_seconds": event.seconds,
        }
        self._event(run, "growth", event.moment, _life(event) | grown)

    def advanced(self, run: Run, event: Event) -> None:
        self._event(run, "phase", event.since, _life(event))

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        about = _life(event) if event is not None else {}
        self._event(run, kind, run.clock.now, {"text": text} | about)

    def noted(self, run: Run, text: str) -> None:
        self._event(run, "note", run.clock.now, {"text": text})

    def stopped(self, run: Run) -> None:
        result = self._result(run)
        self._event(run, "stop", run.clock.now, {k: result[k] for k in ("stop", "grown_out")})
        _write(self.directory / RESULT, result)

    def _result(self, run: Run) -> dict[str, Json]:
        now = run.clock.now
        return {
            "status": "interrupted" if run.stopped is StopReason.INTERRUPTED else self.status,
            "metric_name": run.metric,
            "mode": run.mode,
            "metric": run.last_metric,
            "best_metric": run.best_metric,
            "metrics": dict(run.history[-1].metrics) if run.history else {},
            "test": dict(run.test) if run.test else None,
            "columns": [*self.columns],
            "best_checkpoints": [f"checkpoints/best/{name}" for name, *_ in ranked(run)],
            "params_start": words.params_start(run),
            "params": run.params,
            "flops": now.flops,
            "seconds": now.seconds,
            "cost": told(run),
            "steps": now.step,
            "epochs": run.clock.epoch,
            "measured": {**run.spent.summary()} or self._measured,
            "growths": len(run.grown),
            "undone": len(run.events) - len(run.grown),
            "growth_lives": [_life(event) for event in run.events],
            "lost_flops": sum(event.lost for event in run.events),
            "stop": run.stopped.name if run.stopped else None,
            "grown_out": run.grown_out.name if run.grown_out else None,
            "seed": run.seed,
            "choices": {**self.choices},
            "overrides": [*self.overrides],
        }

    def _event(self, run: Run, kind: str, moment: Moment, more: Mapping[str, Json]) -> None:
        self._row(EVENTS, {"kind": kind, **_when(run, moment), **more})

    def _row(self, name: str, row: Mapping[str, Json]) -> None:
        self._open[name].write(strict(row).encode() + b"\n")
        self._open[name].flush()


def _measured(path: Path) -> Json:
    """What monitors have measured, as a `result.json` has it."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told.get("measured", {}) if isinstance(told, dict) else {}


def truncate(directory: Path, sizes: Mapping[str, int]) -> None:
    """Cut the files back to what a checkpoint knew of, so that a resume repeats no row.

    A file that lost its end (a power cut) keeps its complete rows.
    """
    for name in (METRICS, EVENTS):
        path = directory / name
        if name in sizes and path.exists():
            kept = path.read_bytes()[: sizes[name]]
            os.truncate(path, kept.rfind(b"\n") + 1)


def write_failure(
    directory: Path, choices: Mapping[str, str], overrides: Sequence[str], error: str
) -> None:
    """The `result.json` of a run that raised; `error` is one line."""
    result: dict[str, Json] = {
        "status": "failed",
        "error": units.one_line(error),
        "choices": {**choices},
        "overrides": [*overrides],
    }
    _write(directory / RESULT, result)


def strict(value: Json | Mapping[str, Json], indent: int | None = None) -> str:
    """JSON that every parser reads."""
    return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _finite(value: Json | Mapping[str, Json]) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value


def _when(run: Run, moment: Moment) -> dict[str, Json]:
    return {
        "step": moment.step,
        "epoch": run.clock.count(moment, Unit.EPOCH),
        "samples": moment.samples,
        "flops": moment.flops,
        "seconds": moment.seconds,
    }


def _life(event: Event) -> dict[str, Json]:
    return {
        "index": event.index,
        "stage": event.stage,
        "phase": event.phase.value,
        "alpha": event.alpha,
        "recovery_steps": words.recovery_steps(event),
        "contribution": event.contribution,
        "undone": event.undone or None,
        "lost_flops": event.lost,
    }


def _write(path: Path, result: Mapping[str, Json]) -> None:
    """All of the file or nothing of it."""
    draft = path.with_suffix(".tmp")
    draft.write_text(strict(result, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
