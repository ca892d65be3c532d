"""What a multirun that a signal ended has done, and how it goes on."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from progtrain.command_line.argv import Command, key_of
from progtrain.command_line.resume import quoted

_DIRECTORY = "hydra.sweep.dir"


def tell(command: Command, place: Path) -> None:
    """Say to stderr which jobs are done, and the command that makes the rest."""
    from progtrain.report.outcomes import DONE, read_jobs

    jobs = read_jobs(place)
    done = [each.name for each in jobs if each.status == DONE]
    others = [f"{each.name} ({each.status})" for each in jobs if each.status != DONE]
    told = f"Done: job {', '.join(done)}." if done else "No job is done."
    told += f" Begun: {', '.join(others)}." if others else ""
    print(f"{told}\nContinue the multirun with: {again(command, place)}", file=sys.stderr)


def again(command: Command, place: Path) -> str:
    """The same multirun, in its directory: what is done stays, what was begun goes on."""
    own = ("resume", _DIRECTORY)
    kept = [text for text in command.overrides if key_of(text) not in own]
    words = (*kept, "resume=auto", f"{_DIRECTORY}={_plain(place)}")
    return shlex.join(["progtrain", *replace(command, overrides=words).argv])


def _plain(place: Path) -> str:
    text = str(place)
    return text if all(letter.isalnum() or letter in "/._-" for letter in text) else quoted(place)
