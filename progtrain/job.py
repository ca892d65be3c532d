"""One run from its parts to its result: everything around the stage machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from progtrain.build import Parts
from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.lock import acquire
from progtrain.checkpoint.prune import sweep
from progtrain.checkpoint.read import latest
from progtrain.checkpoint.write import write
from progtrain.curriculum.sight import begin as begin_curriculum
from progtrain.data.sets import Batches
from progtrain.errors import Interrupted
from progtrain.growth.plan import plan
from progtrain.hardware.engine import Engine
from progtrain.loggers.logger import Book
from progtrain.machine import Machine
from progtrain.memory import memory, require_space
from progtrain.report.files import EVENTS, METRICS, Files, truncate
from progtrain.report.many import Many
from progtrain.report.plan import print_plan
from progtrain.report.screen import reporter
from progtrain.report.tracked import Tracked
from progtrain.run import Run, StopReason
from progtrain.signals import asked
from progtrain.start import batches_of, fingerprint, new_run, new_setup
from progtrain.state import differences, file_sizes, pack


def train_job(parts: Parts, directory: Path) -> float:
    """Train, grow and report in `directory`; the primary metric at the end.

    Raises `Interrupted` when a signal ended it (after a last checkpoint), `DivergedError`,
    `GrowthError`, `CheckpointError`, `EnvironmentProblem`, `BusyError` or `ConfigError`.
    """
    engine = parts.hardware.open()
    scarce = memory(directory, parts.train.batch_size)
    with acquire(directory), scarce, asked() as signals:
        folder = directory / "checkpoints"
        sweep(folder)
        saved = latest(folder) if parts.resume else None
        batches = batches_of(parts, engine)
        run = new_run(parts, engine, batches, saved)
        if parts.task == "plan":
            setup = new_setup(parts, engine, batches)
            begin_curriculum(run, setup, ranked=False)
            print_plan(run, plan(run, setup))
            return float("nan")
        truncate(directory, file_sizes(saved) if saved else {METRICS: 0, EVENTS: 0})
        files = Files(directory, parts.choices, _overrides(directory))
        book = Book(directory, parts.config, run.clock.step)
        kept = [logger.where(book) for logger in parts.loggers.values()]
        facts = [engine.facts(), *filter(None, kept), *(saved.skipped if saved else ())]
        again = _resume_command(parts, directory)
        shown = reporter(directory, parts.choices, facts, again)
        told = [Tracked(*each, book, Many([files, shown]).noted) for each in parts.loggers.items()]
        with Many([files, shown, *told]) as reports:
            save = _saver(parts, engine, batches, files, directory)
            setup = new_setup(parts, engine, batches, reports, save, lambda: signals.number != 0)
            begin_curriculum(run, setup, ranked=True)
            stages = plan(run, setup)
            require_space(directory, stages)
            reports.started(run, stages)
            for line in (*parts.notes, *_notes(saved, engine)):
                reports.noted(run, line)
            reason = Machine(run, setup).go()
    if reason is StopReason.INTERRUPTED:
        raise Interrupted(signals.number, f"Continue with: {again}")
    return run.last_metric if run.last_metric is not None else float("nan")


def _saver(
    parts: Parts, engine: Engine, batches: Batches, files: Files, directory: Path
) -> Callable[[Run], None]:
    """What stores a run in its directory."""
    data = fingerprint(batches.sets.train)

    def save(run: Run) -> None:
        tensors, state = pack(run, engine, files.sizes(), data)
        documents = {"state": state, "config": parts.config}
        write(directory / "checkpoints", run.clock.step, tensors, documents, parts.checkpoint.keep)

    return save


def _notes(saved: Checkpoint | None, engine: Engine) -> list[str]:
    """What a resumed run must tell: whether it can still end in the same bits."""
    changed = differences(saved, engine) if saved else []
    if not changed:
        return []
    return [f"not bit for bit the same as without a stop: {', '.join(changed)}"]


def _resume_command(parts: Parts, directory: Path) -> str:
    """What continues this run; packages of the user's must be named again."""
    plugins = ",".join(parts.config.get("plugins") or [])
    return f"progtrain resume={directory}" + (f" 'plugins=[{plugins}]'" if plugins else "")


def _overrides(directory: Path) -> list[str]:
    """What was typed, as Hydra has stored it."""
    stored = directory / ".hydra" / "overrides.yaml"
    return list(yaml.safe_load(stored.read_text()) or []) if stored.is_file() else []
