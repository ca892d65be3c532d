"""Tasks for a network that a run has stored: `task=test checkpoint=PATH` and its like.

`checkpoint` is a group of settings to Hydra, so such commands are read before it and do not come to
it: what they take are the settings in the checkpoint, and the few of their own that `_TAKES` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from progtrain.command_line import directory, signatures, tree
from progtrain.command_line.argv import Command, Mode, key_of
from progtrain.command_line.check import OF_CHECKPOINTS, TASKS, report
from progtrain.command_line.names import SEVERAL, apply, option_problem, setting_problem
from progtrain.command_line.session import Session, given, opened
from progtrain.command_line.targets import plugins_in
from progtrain.command_line.typos import suggestion
from progtrain.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from progtrain.checkpoint.format import Checkpoint

_ALWAYS = ("task", "checkpoint", "plugins", "hydra.run.dir", "train.answers")
_TAKES = {
    "test": ("data", "hardware", "metric"),
    "predict": ("input", "predict", "hardware", "seed"),
    "inspect": (),
    "export": ("export",),
}


@dataclass(frozen=True)
class Request:
    """A command that is right, with the settings of the checkpoint that it is about."""

    task: str
    saved: Checkpoint
    config: DictConfig  # as stored, with what the command changes
    place: Path  # for what the task writes
    named: bool  # whether the user has named it
    changes: tuple[str, ...]  # settings of the run that the command gives another value

    @property
    def plugins(self) -> tuple[str, ...]:
        return plugins_in(self.config)

    @property
    def answers(self) -> str | None:
        """The head that answers, where the network has several."""
        named = OmegaConf.select(self.config, "train.answers")
        return None if named is None else str(named)

    def setting(self, name: str) -> Any:
        return tree.value_at(self.config, name)

    def made(self, name: str) -> Any:
        """One node, checked and built; raises `ConfigError` with all that is wrong."""
        from progtrain import build

        def relevant(path: str) -> bool:
            return path == name or path.startswith(f"{name}.")

        findings = signatures.check(self.config, relevant)
        problems = [finding.problem for finding in findings if finding.problem]
        if not problems:
            build.settle(self.config, findings)
            problems = build.refusals(self.config, relevant)
        if problems:
            raise ConfigError(report(problems))
        return instantiate(OmegaConf.select(self.config, name), _convert_="all")

    def claim(self) -> Path:
        """The directory, made; one that holds a run is taken only where the user has named it."""
        if self.named:
            return directory.take(self.place, shared=True)
        return directory.claim(self.place)


def wanted(command: Command) -> str | None:
    """The task, where it is about a stored network; raises where a checkpoint has no such task."""
    if command.mode is Mode.TEXT:
        return None
    task = given(command.overrides, "task")
    if task in OF_CHECKPOINTS:
        return str(task)
    path = _path(command)
    if path is None:
        return None
    if task is not None and task not in TASKS:
        near = did_you_mean(str(task), OF_CHECKPOINTS)
        raise ConfigError(f"task={task} is no task for a checkpoint.{near}")
    raise ConfigError(
        f"checkpoint={path} is for {_listed(OF_CHECKPOINTS)}: write task=<one of them> before it."
        f" To continue that run: resume={path}. How often a run is stored: checkpoint.every."
    )


def run(command: Command, task: str) -> int:
    """Check, do the task, tell where its files are; the exit code."""
    path = _checked_path(command, task)
    with opened(command) as session:
        parsed, problems = _parsed(session, command, task)
        if problems:
            raise ConfigError(report(problems))
        request = _request(session, parsed, task, path, command)
    from progtrain.tasks import start

    return start(request)


def _path(command: Command) -> str | None:
    """What `checkpoint=` names, quotes off; None where it is not given."""
    texts = [text for text in command.overrides if key_of(text) == "checkpoint"]
    if not texts:
        return None
    value = given(command.overrides, "checkpoint")
    return str(value) if isinstance(value, str | int | float) else texts[-1].partition("=")[2]


def _checked_path(command: Command, task: str) -> Path:
    if command.problems:
        raise ConfigError(report(command.problems))
    if command.mode is Mode.SWEEP:
        raise ConfigError(f"task={task} looks at one checkpoint: leave -m out.")
    if command.mode is Mode.SHOW:
        raise ConfigError(f"--cfg and --info show a run to come. task=inspect shows a stored one's"
                          f" settings: leave the flag out of task={task}.")  # fmt: skip
    path = _path(command)
    if not path:
        raise ConfigError(
            f"task={task} needs a checkpoint: progtrain task={task} checkpoint=<directory of a run,"
            " or one of its checkpoints/step_*>."
        )
    return Path(path).expanduser()


def _parsed(session: Session, command: Command, task: str) -> tuple[list[Override], list[str]]:
    """What the command gives but the task and the checkpoint; and what is wrong with it."""
    parsed: list[Override] = []
    problems: list[str] = []
    for text in command.overrides:
        if key_of(text) in ("task", "checkpoint"):
            continue
        try:
            override = session.parse(text)
        except ConfigError as error:
            problems.append(str(error))
            continue
        parsed.append(override)
        name = override.key_or_group
        if not _taken(name, task):
            problems.append(_untaken(session, name, task))
        elif override.is_sweep_override():
            problems.append(f"{text} is a sweep, but task={task} runs once: give one value.")
        elif name in session.groups and (problem := option_problem(session, override)):
            problems.append(problem)
    return parsed, problems


def _taken(name: str, task: str) -> bool:
    nodes = (*_ALWAYS, *_TAKES[task])
    return any(name == node or name.startswith((f"{node}.", f"{node}/")) for node in nodes)


def _untaken(session: Session, name: str, task: str) -> str:
    own = [node for node in (*_TAKES[task], *_ALWAYS) if node not in ("task", "checkpoint")]
    near = suggestion(name, own) if name.partition(".")[0] not in session.groups else ""
    return (
        f"{name} cannot be changed: task={task} takes its settings from the checkpoint. Of its own"
        f" it takes {', '.join(own)}.{near}"
    )


def _request(
    session: Session, parsed: Sequence[Override], task: str, path: Path, command: Command
) -> Request:
    groups = [o for o in parsed if o.key_or_group in session.groups]
    defaults = session.compose([str(o.input_line) for o in groups])
    place = _directory(session, command)
    OmegaConf.set_struct(defaults, False)
    del defaults["hydra"]

    from progtrain.checkpoint.read import read
    from progtrain.command_line.stored import with_defaults

    saved = read(path)
    config = with_defaults(saved, _plain(defaults))
    before = dict(tree.leaves(tree.raw(config)))
    config.plugins, config.task, config.resume = [], task, None
    for name in {o.key_or_group.partition("/")[0] for o in groups}:
        OmegaConf.update(config, name, _plain(defaults)[name], merge=False)
    problems = list(_applied(session, config, [o for o in parsed if o not in groups]))
    if problems:
        raise ConfigError(report(problems))
    return Request(task, saved, config, place, _named(command), tuple(_changes(before, config)))


def _applied(session: Session, config: DictConfig, settings: Sequence[Override]) -> Iterator[str]:
    """Set what is given value by value; what is wrong with it."""
    for override in settings:
        if not override.is_hydra_override():
            problem = setting_problem(session, config, override) or apply(config, override)
            if problem:
                yield problem


def _changes(before: dict[str, object], config: DictConfig) -> Iterator[str]:
    after = dict(tree.leaves(tree.raw(config)))
    own = ("task", "plugins", "resume", "input", "predict.", "export.", *SEVERAL)
    for name in (name for name in after if not name.startswith(own)):
        if before.get(name) != after[name]:
            yield name


def _named(command: Command) -> bool:
    return given(command.overrides, "hydra.run.dir") is not None


def _directory(session: Session, command: Command) -> Path:
    """Where Hydra would write."""
    own = [text for text in command.overrides if key_of(text) == "hydra.run.dir"]
    return Path(str(OmegaConf.select(session.compose(own), "hydra.run.dir")))


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = tree.raw(config)
    return plain


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"task={name}" for name in names)
