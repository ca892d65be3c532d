"""`task=compare runs=DIR`: what finished runs say together. It trains nothing and needs no torch.

Read before Hydra, which would make a directory for it; its files go beside the runs.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from progtrain.command_line import directory, signatures
from progtrain.command_line.argv import Command, Mode, key_of
from progtrain.command_line.check import COMPARE
from progtrain.command_line.names import apply, setting_problem
from progtrain.command_line.session import Session, given, opened
from progtrain.command_line.typos import suggestion
from progtrain.errors import ConfigError, EnvironmentProblem, report

if TYPE_CHECKING:
    from progtrain.comparison.result import Comparison
    from progtrain.settings import Comparing

_TAKES = ("runs", "compare", "hydra.run.dir")
_SWEPT = ("multirun.yaml", "comparison.csv")  # of a multirun, whose own comparison.json stays
_PATTERN = set("*?[")


def wanted(command: Command) -> bool:
    """Whether the task is this one; raises where `runs` is given to another."""
    if command.mode is Mode.TEXT:
        return False
    task = given(command.overrides, "task")
    if task == COMPARE:
        return True
    if task is None and any(key_of(text) == "runs" for text in command.overrides):
        raise ConfigError("runs= is for task=compare: write task=compare before it.")
    return False


def run(command: Command) -> int:
    """Compare, print, write; the exit code."""
    _require_plain(command)
    with opened(command) as session:
        options = _options(session, command)
    folders = _folders(command)

    from progtrain.comparison.compare import compare

    compared = compare(folders, options.margin, "", options.bootstrap, options.seed)
    show(compared, _place(command, folders))
    return 0


def show(compared: Comparison, place: Path) -> None:
    """Print a comparison, and write it as JSON and as a page into a directory."""
    from progtrain.comparison.compare import to_json
    from progtrain.page.comparison import write
    from progtrain.report.comparison import print_comparison

    files = place / _name(place), place / "compare.html"
    try:
        files[0].write_text(to_json(compared), encoding="utf-8")
        write(compared, files[1])
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EnvironmentProblem(
            f"Cannot write to {place}: {reason}. Try hydra.run.dir=<directory>."
        ) from error
    print_comparison(compared, files)


def _require_plain(command: Command) -> None:
    if command.problems:
        raise ConfigError(report(command.problems))
    if command.mode is not Mode.RUN:
        flag = "-m" if command.mode is Mode.SWEEP else "--cfg and --info"
        raise ConfigError(f"task=compare looks at runs that are over: leave {flag} out.")


def _options(session: Session, command: Command) -> Comparing:
    """The settings of the comparison, checked with every other setting of the command."""
    config = session.compose([])
    problems = [*_problems(session, config, command)]
    if problems:
        raise ConfigError(report(problems))

    from progtrain import build

    def relevant(path: str) -> bool:
        return path == COMPARE

    findings = signatures.check(config, relevant)
    problems = [finding.problem for finding in findings if finding.problem]
    if not problems:
        build.settle(config, findings)
        problems = build.refusals(config, relevant)
    if problems:
        raise ConfigError(report(problems))
    return instantiate(config.compare)


def _problems(session: Session, config: DictConfig, command: Command) -> Iterator[str]:
    for text in command.overrides:
        try:
            override = session.parse(text)
        except ConfigError as error:
            yield str(error)
            continue
        name = override.key_or_group
        if name == "task":
            continue
        if not any(name == node or name.startswith(f"{node}.") for node in _TAKES):
            near = suggestion(name, [*_TAKES, *(f"compare.{key}" for key in config.compare)])
            yield f"{name} has no meaning for task=compare: it takes {', '.join(_TAKES)}.{near}"
        elif override.is_sweep_override():
            listed = f"{name}=[{text.partition('=')[2]}]"
            hint = f" For several folders: {listed}." if name == "runs" else " Give one value."
            yield f"{text} is a sweep, but task=compare runs once.{hint}"
        elif not override.is_hydra_override():
            problem = setting_problem(session, config, override) or apply(config, override)
            if problem:
                yield problem


def _folders(command: Command) -> list[Path]:
    """What `runs` names: a folder, a pattern, or a list of them; each once."""
    value = given(command.overrides, "runs")
    each = value if isinstance(value, list) else [] if value is None else [value]
    words = [str(word) for word in each if isinstance(word, str | int | float)]
    if not words or len(words) < len(each):
        raise ConfigError(
            "task=compare needs runs=<directory of a run, a sweep or a study>, or several:"
            " runs=[a,b], or a pattern in quotes: runs='outputs/*/*'."
        )
    return list(dict.fromkeys(path for word in words for path in _matching(word)))


def _matching(word: str) -> list[Path]:
    text = os.path.expanduser(word)
    if not set(text) & _PATTERN or Path(text).exists():
        return [Path(text)]
    found = sorted(path for path in glob.glob(text) if os.path.isdir(path))
    if not found:
        raise ConfigError(f"runs={word} matches no directory (looked from {Path.cwd()}).")
    return [Path(path) for path in found]


def _place(command: Command, folders: Sequence[Path]) -> Path:
    """The directory for its files: the named one, or the one that holds all the runs."""
    named = given(command.overrides, "hydra.run.dir")
    if named is not None:
        return directory.take(Path(str(named)), shared=True)
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))


def _name(place: Path) -> str:
    """`compare.json` where a multirun has, or will write, a comparison.json of its own."""
    if any((place / name).exists() for name in _SWEPT):
        return "compare.json"
    try:
        told = json.loads((place / "comparison.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "comparison.json"
    except (OSError, ValueError):
        return "compare.json"
    return "comparison.json" if isinstance(told, dict) and "arms" in told else "compare.json"
