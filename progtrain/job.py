"""One run from its parts to its result: everything around the stage machine."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import yaml

from progtrain.ahead.reporter import compiling_ahead
from progtrain.best import ranked
from progtrain.build import Parts
from progtrain.checkpoint.best import BEST, write_best
from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.lock import RunLock, acquire
from progtrain.checkpoint.prune import sweep
from progtrain.checkpoint.read import latest, read
from progtrain.checkpoint.write import write
from progtrain.curriculum.sight import begin as begin_curriculum
from progtrain.data.sets import Batches
from progtrain.debug.again import Anew
from progtrain.debug.around import Around
from progtrain.errors import DivergedError, Interrupted
from progtrain.growth.plan import plan
from progtrain.growth.plan_checks import warnings
from progtrain.hardware.engine import Engine
from progtrain.hardware.group import Group
from progtrain.inputs import Inputs
from progtrain.loggers.logger import Book
from progtrain.machine import Machine
from progtrain.memory import memory, require_space
from progtrain.metrics import choosing
from progtrain.page.leave import leave
from progtrain.planning.task import foresee, write_plan
from progtrain.report.diverged import diverged
from progtrain.report.files import EVENTS, METRICS, Files, truncate
from progtrain.report.header import header
from progtrain.report.many import Many
from progtrain.report.plan import print_plan
from progtrain.report.reporter import Reporter
from progtrain.report.screen import reporter
from progtrain.report.tracked import Tracked
from progtrain.report.units import assigned, written
from progtrain.run import Json, Run, StopReason
from progtrain.setup import Save, SaveBest
from progtrain.sharding import spread
from progtrain.signals import Signals, asked
from progtrain.start import batches_of, fingerprint, new_run, new_setup, num_classes
from progtrain.state import Tensors, differences, file_sizes, pack


def train_job(parts: Parts, directory: Path, held: RunLock | None = None) -> float:
    """Train, grow and report in `directory`; the primary metric at the end.

    `held` is the lock on the directory where the caller has it already; it is released.
    Raises `Interrupted` when a signal ended it (after a last checkpoint; `Ended` where there was
    nothing to store yet, or at a second signal), `FoundError`, `DivergedError`,
    `GrowthError`, `CheckpointError`, `EnvironmentProblem`, `BusyError` or `ConfigError`.
    """
    engine = parts.hardware.open()
    scarce = memory(directory, engine, parts.train)
    counted = choosing({name: each.smaller for name, each in parts.metrics.items()})
    group = engine.group
    lock = (held or acquire(directory)) if group.first else nullcontext()
    with lock, scarce, asked() as signals, counted:
        engine.came = signals.came
        saved = _saved(parts, directory, group)
        parts = parts.debug.trimmed(parts)
        size = parts.train.batch_size * parts.train.accumulate
        batches = parts.debug.cut(batches_of(parts, engine), size)
        run = new_run(parts, engine, batches, saved)
        if parts.task == "plan":
            _foresee(parts, engine, batches, run, directory)
            return float("nan")
        around = Around(directory, Anew(parts, batches, saved, directory), group.first)
        reason = _trained(run, parts, engine, batches, saved, around, signals)
        if parts.report.page and group.first:
            leave(directory)
        engine.close()
    if reason is StopReason.INTERRUPTED:
        again = _resume_command(parts, directory)
        raise Interrupted(signals.number, f"Continue with: {again}")
    around.conclude(partial(print, flush=True))
    if signals.number:
        raise Interrupted(signals.number, "The run had come to its end, so nothing is lost.")
    return run.last_metric if run.last_metric is not None else float("nan")


def _saved(parts: Parts, directory: Path, group: Group) -> Checkpoint | None:
    """Where the run goes on from, the same for all processes; what a crash has left goes."""
    folder, found = directory / "checkpoints", None
    if group.first:
        sweep(folder)
        sweep(folder / BEST)
        found = latest(folder) if parts.resume else None
    path = group.of_first(found.path if found else None)
    return found if path is None or group.first else read(path)


def _foresee(parts: Parts, engine: Engine, batches: Batches, run: Run, directory: Path) -> None:
    rehearsal = foresee(parts, engine, batches, run, directory)
    print_plan(run, rehearsal)
    print(*written([write_plan(rehearsal, directory)]), flush=True)


def _trained(
    run: Run,
    parts: Parts,
    engine: Engine,
    batches: Batches,
    saved: Checkpoint | None,
    around: Around,
    signals: Signals,
) -> StopReason:
    """Take the run to its end, told to its files, the screen and trackers."""
    directory = around.directory
    files = _files(parts, directory, saved) if engine.group.first else None
    told = _reporters(run, parts, engine, batches, saved, files) if files is not None else []
    with Many(told) as reports:
        save, save_best = _savers(parts, engine, batches, files, directory)
        setup = new_setup(parts, engine, batches, reports, save, engine.interrupted, save_best)
        begin_curriculum(run, setup, ranked=True)
        stages = plan(run, setup)
        if engine.group.first:
            require_space(directory, stages)
        odd = [f"warning: {text}" for text in warnings(run, setup)]
        spread(run, engine, parts.optimizer)
        _be_patient(signals, engine.group)
        reports.started(run, stages)
        of_data = () if saved else (*parts.notes, *batches.sets.notes)
        notes = (*of_data, *_notes(saved, engine))
        for line in (*notes, *odd):
            reports.noted(run, line)
        try:
            with compiling_ahead(run, setup) as setup:
                return parts.debug.drive(Machine(run, setup), around)
        except DivergedError as error:
            raise diverged(directory, error, engine.group.first) from error


def _be_patient(signals: Signals, group: Group) -> None:
    """From here on a signal stores the run; rank 0 says so, so it is the last to turn: another that
    ended at once would take it along."""
    signals.patient = not group.first
    group.barrier()
    signals.patient = True


def _files(parts: Parts, directory: Path, saved: Checkpoint | None) -> Files:
    """The run's rows and results, as long as the checkpoint has them."""
    truncate(directory, file_sizes(saved) if saved else {METRICS: 0, EVENTS: 0})
    typed = _overrides(directory)
    return Files(directory, parts.choices, typed, parts.debug.status, parts.train.columns)


def _reporters(
    run: Run,
    parts: Parts,
    engine: Engine,
    batches: Batches,
    saved: Checkpoint | None,
    files: Files,
) -> list[Reporter]:
    """Who is told what happens: the files, the screen, loggers; of several processes one tells."""
    directory = files.directory
    book = Book(directory, parts.config, run.clock.step)
    facts = [engine.facts(), *header(run, batches.sets, parts), *_places(parts, book)]
    facts += saved.skipped if saved else ()
    shown = reporter(directory, parts.choices, facts, _resume_command(parts, directory))
    return [files, shown, *_told(parts, book, [files, shown])]


def _savers(
    parts: Parts, engine: Engine, batches: Batches, files: Files | None, directory: Path
) -> tuple[Save, SaveBest]:
    """What stores a run in its directory, as the newest and as one of the best."""
    if files is None:
        part = partial(_take_part, engine)
        return part, part
    data, folder = fingerprint(batches.sets), directory / "checkpoints"
    inputs = Inputs.of(batches.sets, parts.data.shape, num_classes(parts)).to_json()

    def content(run: Run) -> tuple[Tensors, dict[str, Json]]:
        tensors, state = pack(run, engine, files.sizes(), data)
        return tensors, {"state": state, "config": parts.config, "inputs": inputs}

    def save(run: Run) -> None:
        write(folder, run.clock.step, *content(run), parts.checkpoint.keep)

    def save_best(run: Run, name: str) -> None:
        kept = [each for each, *_ in ranked(run)]
        write_best(folder, name, run.clock.step, *content(run), kept)

    return save, save_best


def _take_part(engine: Engine, run: Run, name: str = "") -> None:
    """Another process stores the run: give it this one's shards, where there are any."""
    if engine.shards is not None:
        pack(run, engine, {}, "")


def _places(parts: Parts, book: Book) -> list[str]:
    """Where loggers show the run."""
    return [place for logger in parts.loggers.values() if (place := logger.where(book))]


def _told(parts: Parts, book: Book, others: list[Reporter]) -> list[Tracked]:
    """Reporters for the loggers; what fails there is told to the others."""
    warn = Many(others).noted
    return [Tracked(name, logger, book, warn) for name, logger in parts.loggers.items()]


def _notes(saved: Checkpoint | None, engine: Engine) -> list[str]:
    """What a resumed run must tell: whether it can still end in the same bits."""
    changed = differences(saved, engine) if saved else []
    if not changed:
        return []
    return [f"not bit for bit the same as without a stop: {', '.join(changed)}"]


def _resume_command(parts: Parts, directory: Path) -> str:
    """What continues this run; packages of the user's must be named again."""
    plugins = ",".join(parts.config.get("plugins") or [])
    return f"progtrain {assigned('resume', directory)}" + (
        f" 'plugins=[{plugins}]'" if plugins else ""
    )


def _overrides(directory: Path) -> list[str]:
    """What was typed, as Hydra has stored it."""
    stored = directory / ".hydra" / "overrides.yaml"
    return list(yaml.safe_load(stored.read_text()) or []) if stored.is_file() else []
