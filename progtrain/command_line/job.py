"""What Hydra runs: one job, from its composed configuration to its result."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from progtrain.checkpoint.lock import RunLock, acquire
from progtrain.command_line import launched, preflight, resume, spawn, told
from progtrain.command_line.argv import key_of
from progtrain.command_line.directory import holds_checkpoint
from progtrain.command_line.ranks import Work, others_gone
from progtrain.command_line.recipes import release
from progtrain.errors import BusyError, ConfigError, Interrupted, ProgtrainError, SettingError
from progtrain.hardware.place import here
from progtrain.page.leave import leave

_STUDY = ".StudySweeper"


def run(config: DictConfig) -> float:
    """Train, and return the primary metric; a failure is told here, once and in one line.

    In a multirun a failure must not leave this function as it is: its frames would keep the
    network in memory until the last job has ended. Sweepers that learn from results are told by a
    new, light exception; to the basic one it is a job without a metric.
    """
    many = HydraConfig.get().mode == RunMode.MULTIRUN
    _release(config)
    try:
        return _train(config, many)
    except Exception as error:
        what = "is passed over" if isinstance(error, BusyError) else "failed"
        code = tell(error, f"job {_name()} {what}: " if many else "error: ")
        stops = not many or isinstance(error, Interrupted)
        if not isinstance(error, BusyError | Interrupted):
            _leave_result(str(error) or type(error).__name__)
            if OmegaConf.select(config, "report.page"):
                leave(_directory())
        message = f"{type(error).__name__} in job {_name()}"
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    if stops:
        raise SystemExit(code)
    if not HydraConfig.get().sweeper._target_.endswith((".BasicSweeper", _STUDY)):
        raise CompactHydraException(message)
    return float("nan")


def tell(error: BaseException, opening: str = "error: ") -> int:
    """Print what went wrong to stderr; the exit code that goes with it."""
    known = isinstance(error, ProgtrainError | SettingError)
    if not known or os.environ.get("PROGTRAIN_DEBUG") == "1":
        traceback.print_exception(error)
    if known:
        what = "" if isinstance(error, Interrupted) else opening
        print(f"{what}{printable(str(error))}", file=sys.stderr, flush=True)
    if isinstance(error, ProgtrainError):
        return error.exit_code
    return ConfigError.exit_code if known else 1


def printable(text: str) -> str:
    """Control characters escaped: a config must not steer the terminal."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text
    )


def _directory() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def _name() -> str:
    """What a multirun calls the job: 3, or of a study the arm and the seed."""
    root, place = Path(str(HydraConfig.get().sweep.dir)).absolute(), _directory().absolute()
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else place.name


def _train(config: DictConfig, many: bool) -> float:
    directory = _directory()
    if many:
        _announce()
    if config.get("resume") != "auto":
        return _trained(config, directory, None)
    if not many:
        OmegaConf.update(config, "resume", holds_checkpoint(directory))
        return _trained(config, directory, None)
    with acquire(directory) as lock:  # from here on: another process may be about to do the job
        done = _same_job(config, directory)
        if done is not None:
            print(f"job {_name()} is done already", flush=True)
            return done
        OmegaConf.update(config, "resume", holds_checkpoint(directory))
        return _trained(config, directory, lock)


def _trained(config: DictConfig, directory: Path, lock: RunLock | None) -> float:
    from progtrain import build
    from progtrain.hardware.devices import take_turn
    from progtrain.job import train_job

    turn = _turn()
    parts = build.build(config)
    if parts.task == "plan":
        return train_job(parts, directory, lock)
    count = preflight.processes(parts.hardware, parts.optimizer, parts.train.batch_size)
    told.write_config(parts.config, directory)
    if count > 1 and here() is None:
        return spawn.run(Work.of(config, directory), count, lock, turn)
    if turn is not None:
        take_turn(turn)
    if launched.leads():
        launched.hand_over(Work.of(config, directory))
    with others_gone(directory):
        return train_job(parts, directory, lock)


def _turn() -> int | None:
    """Where jobs run at once on one machine: which of them this is, for its share of the GPUs."""
    hydra = HydraConfig.get()
    launcher = hydra.launcher
    at_once = str(launcher._target_).endswith(".JoblibLauncher") and launcher.get("n_jobs") != 1
    return int(hydra.job.num) if hydra.mode == RunMode.MULTIRUN and at_once else None


def _release(config: DictConfig) -> None:
    """Settings of a recipe that go with an option which was not chosen."""
    hydra = HydraConfig.get()
    sources = [source for source in hydra.runtime.config_sources if source.schema == "file"]
    typed = [key_of(text) for text in hydra.overrides.task]
    release(config, hydra.runtime.choices, [Path(source.path) for source in sources], typed)


def _announce() -> None:
    settings = " ".join(HydraConfig.get().overrides.task) or "all defaults"
    of_study = HydraConfig.get().sweeper._target_.endswith(_STUDY)  # study.json has the settings
    print(f"\njob {_name()}" + ("" if of_study else f": {printable(settings)}"), flush=True)


def _same_job(config: DictConfig, directory: Path) -> float | None:
    """The metric of a job of a multirun that is done; raises if the directory is another job's."""
    changed = resume.changes(directory, told.resolved(config))
    if changed:
        raise ConfigError(
            f"{directory} holds another job ({'; '.join(changed[:3])})."
            " Give the same command as before, or another hydra.sweep.dir."
        )
    return resume.finished(directory)


def _leave_result(error: str) -> None:
    """Write the `result.json` of a failed job, where that is possible."""
    from progtrain.report.files import write_failure

    hydra = HydraConfig.get()
    chosen: dict[str, Any] = dict(hydra.runtime.choices)
    choices = {str(k): str(v) for k, v in chosen.items() if not str(k).startswith("hydra")}
    try:
        write_failure(_directory(), choices, list(hydra.overrides.task), error)
    except OSError as problem:
        print(f"warning: no result.json: {problem}", file=sys.stderr)
