"""The command `progtrain`: read, check everything, find a directory, let Hydra run the job.

torch is imported only for a command whose settings are spelt right.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import SystemRandom

import hydra
from hydra.errors import CompactHydraException

from progtrain import __version__
from progtrain.checkpoint.lock import acquire
from progtrain.command_line import (
    compare,
    directory,
    from_checkpoint,
    interrupted,
    job,
    launched,
    left_behind,
    preflight,
    resume,
    study,
    sweep,
)
from progtrain.command_line.argv import Command, Mode, key_of, read
from progtrain.command_line.check import Plan, check, hydra_problems, plan
from progtrain.command_line.leaving import leave
from progtrain.command_line.session import VERSION_BASE, conf_directory, given, opened
from progtrain.errors import ConfigError, ProgtrainError, SettingError, report
from progtrain.signals import WANTED, Ended, ending

INTERRUPTED, TERMINATED = (128 + number for number in WANTED)


def main() -> None:
    """Entry point of the console script."""
    try:
        code = run(sys.argv[1:])
        if launched.several():
            leave(code)
        sys.exit(code)
    except BrokenPipeError:  # `progtrain --help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def run(argv: Sequence[str]) -> int:
    """Do what `argv` asks, or take part in it where this is one of several processes of it; the
    exit code."""
    try:
        place = launched.place()
        if place is None:
            return _done(argv)
        if place.first:
            return launched.lead(place, lambda: _done(argv))
        return launched.follow(place)
    except ProgtrainError as error:  # the processes cannot meet
        return job.tell(error)


def _done(argv: Sequence[str]) -> int:
    try:
        with ending():
            return _run(argv)
    except (ProgtrainError, SettingError) as error:
        return job.tell(error)
    except KeyboardInterrupt as ended:
        print("Interrupted.", file=sys.stderr)
        return 128 + ended.number if isinstance(ended, Ended) else INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    if "--version" in argv:
        print(f"progtrain {__version__}, hydra-core {hydra.__version__}")
        return 0
    command = read(argv)
    if command.mode is Mode.TEXT:
        return _text(command)
    if command.mode is Mode.SWEEP or study.wanted(command):
        launched.refuse_many()
    if compare.wanted(command):
        return compare.run(command)
    if study.wanted(command):
        return study.run(command, _launch)
    if (task := from_checkpoint.wanted(command)) is not None:
        return from_checkpoint.run(command, task)
    typed, command = command.overrides, _with_past(command)
    with opened(command) as session:
        command = left_behind.leave(session, command, typed)
        command = sweep.fitting(session, command) if command.mode is Mode.SWEEP else command
        check(session, command)
        planned = plan(session, command) if command.mode is not Mode.SHOW else None
    if planned is None:
        return _launch(command)
    for warning in planned.warnings:
        print(f"warning: {job.printable(warning)}", file=sys.stderr)
    if command.mode is Mode.RUN:  # jobs of a multirun may run on another machine
        preflight.refuse(planned.config)
    command, place = _placed(_seeded(command, planned), planned)
    if command.mode is not Mode.SWEEP:
        return _launch(command)
    try:
        code = _launch(command)
    except KeyboardInterrupt:
        interrupted.tell(command, place)
        raise
    if code in (INTERRUPTED, TERMINATED):
        interrupted.tell(command, place)
    return _compared(place) if code in (0, 1) else code


def _compared(place: Path) -> int:
    """Show the jobs of a multirun side by side; 1 where one has failed."""
    from progtrain.report.outcomes import DONE, read_jobs
    from progtrain.report.sweep import print_comparison

    print_comparison(place)
    return 0 if all(job.status == DONE for job in read_jobs(place)) else 1


def _text(command: Command) -> int:
    """Help and completion: nothing to check but what would run code."""
    problems, text = list(command.problems), None
    own = command.config_dir or command.config_name != "config"
    if not problems and (own or command.asks_help):
        with opened(command) as session:
            problems += hydra_problems(session.compose([]))
            text = session.help(command.overrides) if command.asks_help and not problems else None
    if problems:
        raise ConfigError(report(problems))
    if text is None:
        return _launch(command)
    print(text)
    return 0


def _with_past(command: Command) -> Command:
    """When the command continues a run: with the settings of that run."""
    if command.mode is Mode.SHOW:
        return command
    named = given(command.overrides, _key(command))
    directory = Path(named) if isinstance(named, str) else None
    return resume.continued(command, given(command.overrides, "resume"), directory)


def _seeded(command: Command, planned: Plan) -> Command:
    """Draw a seed where none is wanted in particular, so that the run can be repeated."""
    if planned.config.get("seed", 0) is not None:
        return command
    seed = SystemRandom().randrange(2**31)
    print(f"seed={seed} (drawn)")
    kept = (text for text in command.overrides if key_of(text) != "seed")
    return replace(command, overrides=(*kept, f"seed={seed}"))


def _placed(command: Command, planned: Plan) -> tuple[Command, Path]:
    """The command with an output directory that is its own, and that directory."""
    key = _key(command)
    if given(command.overrides, key) is None:
        place = directory.claim(planned.run_dir)
        here = f"{key}={resume.quoted(place)}"
        return replace(command, overrides=(*command.overrides, here)), place
    continues = given(command.overrides, "resume") not in (None, False)
    place = directory.take(planned.run_dir, shared=continues)
    if command.mode is Mode.RUN and directory.holds_checkpoint(place):
        acquire(place).release()  # before Hydra writes into a run that is still going on
        for change in resume.refuse_another_run(place, planned.settings):
            print(f"changed: {job.printable(change)}")
    return command, place


def _key(command: Command) -> str:
    return "hydra.sweep.dir" if command.mode is Mode.SWEEP else "hydra.run.dir"


def _launch(command: Command) -> int:
    """Hand over to Hydra; the exit code."""
    sys.argv = [sys.argv[0], *command.argv]
    conf = str(conf_directory())
    start = hydra.main(version_base=VERSION_BASE, config_path=conf, config_name="config")(job.run)
    try:
        start()
    except CompactHydraException:  # HYDRA_FULL_ERROR=1
        traceback.print_exc()
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0
