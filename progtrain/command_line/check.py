"""Finds everything that is wrong with a command before anything is created or started."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from progtrain.clock import Duration
from progtrain.command_line import classes, files, metrics, signatures, sweep, sweepers, tree
from progtrain.command_line.argv import Command, Mode, key_of
from progtrain.command_line.names import SEVERAL, draft
from progtrain.command_line.session import Session
from progtrain.command_line.surprises import surprises
from progtrain.command_line.values import shown
from progtrain.errors import ConfigError, ProgtrainError, SettingError, did_you_mean, report
from progtrain.metrics.names import TAKEN

_LAST_SEED = 2**63 - 1
TASKS = ("train", "plan")
OF_CHECKPOINTS = ("test", "predict", "inspect", "export")  # what a stored network is looked at by
COMPARE = "compare"  # what finished runs are looked at by
_EVERY = (*TASKS, *OF_CHECKPOINTS, COMPARE)
_NODES = (
    *("model", "data", "curriculum", "growth", "warmup", "transfer", "settle"),
    *("scheduler", "at_growth", "optimizer", "optimizer_state", "hardware"),
    *("train", "stop", "proof", "checkpoint", "mix", "loss", "nonfinite"),
    *("predict", "export", "report", "plan", "compare", "debug"),
)
_HARMLESS = ("logging.", "hydra.", "hydra_plugins.", "colorlog.", "rich.")
_SAMPLER = re.compile(r"optuna\.samplers\.[A-Z][A-Za-z]*Sampler")  # of hydra/sweeper=optuna


@dataclass(frozen=True)
class Plan:
    """What Hydra will do with a command that is right."""

    config: DictConfig  # of the job (without what is swept over, for a multirun)
    run_dir: Path  # where Hydra would write: hydra.run.dir, or hydra.sweep.dir
    warnings: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The job's settings as they will be stored."""
        from progtrain.command_line.told import resolved

        job = copy.deepcopy(self.config)
        OmegaConf.set_struct(job, False)
        del job["hydra"]
        return resolved(job)


def check(session: Session, command: Command) -> None:
    """Raise `ConfigError` with one report of all problems."""
    parsed, problems = parsed_words(session, command)
    if command.mode is Mode.SWEEP:
        problems += _sweep_problems(session, command, parsed)
    else:
        problems += job_problems(session, command, parsed)
    if problems:
        raise ConfigError(report(problems))


def parsed_words(session: Session, command: Command) -> tuple[list[Override], list[str]]:
    """What of the command can be read, and what is wrong with the rest."""
    problems = list(command.problems)
    parsed: list[Override] = []
    for text in command.overrides:
        try:
            if text not in command.misspelt:
                parsed.append(session.parse(text))
        except ConfigError as error:
            problems.append(str(error))
    return parsed, problems


def plan(session: Session, command: Command) -> Plan:
    """Compose a command that has passed `check`; raises `ConfigError` for a spoilt study."""
    config = session.compose(command.overrides, command.mode is Mode.SWEEP)
    HydraConfig.instance().set_config(config)  # references such as ${hydra:job.name} need it
    key = "hydra.sweep.dir" if command.mode is Mode.SWEEP else "hydra.run.dir"
    try:
        run_dir = Path(str(OmegaConf.select(config, key)))
    except OmegaConfBaseException as error:
        raise ConfigError(_lost(config, key, error)) from error
    parsed = [session.parse(text) for text in command.overrides]
    told = [*_warnings(command, config, parsed, _sweeper_params(config))]
    if command.mode is Mode.SWEEP:
        if problems := list(sweepers.problems(config)):
            raise ConfigError(report(problems))
        told += sweepers.warnings(config)
    return Plan(config, run_dir, tuple(told))


def _lost(config: DictConfig, key: str, error: Exception) -> str:
    """What a directory refers to that is not there."""
    value = dict(tree.leaves(tree.raw(config.hydra), "hydra"))[key]
    name = re.search(r"\$\{oc\.env:\s*([^},]+)", str(value))
    if name:
        return f"{key}: environment variable {name.group(1)} is not set."
    told = str(error).splitlines()[0]
    missing = re.search(r"'(.*?)' not found", told)
    if missing:
        return f"{key} refers to {missing.group(1)!r}, which does not exist."
    return f"{key} = {value!r} cannot be resolved: {told}."


def _sweep_problems(
    session: Session, command: Command, parsed: Sequence[Override]
) -> Iterator[str]:
    """Problems of every job of a multirun."""
    shared = [override for override in parsed if override.is_hydra_override()]
    swept = next((o for o in shared if o.is_sweep_override()), None)
    if swept is not None:
        yield f"{swept.input_line}: Hydra's own settings cannot be swept over."
        return
    if any(o.key_or_group == "task" and "plan" in str(o.value()) for o in parsed):
        yield "task=plan shows one job: leave -m out."
        return
    hydra = draft(session, shared)
    if hydra.config is None:
        yield from hydra.problems
        return
    try:
        axes = sweep.axes(session, parsed, _sweeper_params(hydra.config))
        jobs = sweep.jobs(axes)
    except ConfigError as error:
        yield str(error)
        return
    found: dict[int, list[str]] = {}
    for number, settings in jobs.items():
        overrides = [*shared, *(session.parse(text) for text in settings)]
        found[number] = job_problems(session, command, overrides)
    yield from sweep.report(found, len(jobs))


def job_problems(session: Session, command: Command, overrides: Sequence[Override]) -> list[str]:
    """Problems of one job."""
    made = draft(session, overrides)
    problems = made.problems
    if made.config is None:
        return problems
    config = made.config
    problems += hydra_problems(config)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    if command.config_dir is not None:
        problems += files.problems(Path(command.config_dir), overrides)
        problems += files.strangers(session, config)
    if config.get("study") is not None and command.mode is not Mode.SHOW:
        problems.append("study is for the command line: progtrain study=<name>.")
    problems += _top_level_problems(config)
    holes = dict(tree.unresolved(config))
    problems += [text for text in holes.values() if text]
    if command.mode is Mode.SHOW:
        return problems
    # Our own YAML is right (tests hold it), and classes are slow to import: once a name is wrong,
    # only what the user gave is looked at.
    everything = not problems or command.config_dir is not None
    relevant = (lambda _: True) if everything else _near(made.touched)
    with metrics.counted(config, any_mode=not everything):
        found = _class_problems(config, relevant, list(holes))
    return list(dict.fromkeys([*problems, *found]))


def _class_problems(
    config: DictConfig, relevant: Callable[[str], bool], holes: Sequence[str]
) -> list[str]:
    """What signatures say, and what the parts themselves refuse."""
    classes.assume(config)
    findings = signatures.check(config, relevant)
    problems = [finding.problem for finding in findings if finding.problem]
    broken = [finding.node for finding in findings if finding.problem]
    if "plugins" in broken:
        return problems
    from progtrain import build

    build.settle(config, findings)
    spoilt = _near([*broken, *holes])
    return problems + build.refusals(config, lambda path: relevant(path) and not spoilt(path))


def _near(names: Sequence[str]) -> Callable[[str], bool]:
    """Whether a node is, holds, or lies in one of `names`."""

    def related(path: str) -> bool:
        parts = [(f"{path}.", f"{name}.") for name in (n.replace("[", ".") for n in names)]
        return any(one.startswith(two) or two.startswith(one) for one, two in parts)

    return related


def _top_level_problems(config: DictConfig) -> Iterator[str]:
    """What belongs to no class."""
    for name in _NODES:
        node = config.get(name)
        if not isinstance(node, DictConfig) or "_target_" not in node:
            told = shown(tree.value_at(config, name))
            yield f"{name} must be settings with a _target_, got {told}."
    for group in SEVERAL:
        yield from _named_problems(config, group)
    task = config.get("task")
    if task in OF_CHECKPOINTS:
        yield f"task={task} is for the command line: write task={task} checkpoint=<directory>."
    elif task == COMPARE:
        yield "task=compare is for the command line: write task=compare runs=<directory>."
    elif task not in TASKS:
        near = did_you_mean(str(task), _EVERY)
        yield f"task must be one of {', '.join(_EVERY)}, got {shown(task)}.{near}"
    if config.get("runs") is not None:
        yield f"runs={shown(config.get('runs'))} is for task=compare, which reads it."
    seed = config.get("seed")
    drawn = seed is None
    whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= _LAST_SEED
    if not (drawn or whole):
        yield f"seed must be a whole number from 0 to 2^63 - 1, or null, got {shown(seed)}."


def _named_problems(config: DictConfig, group: str) -> Iterator[str]:
    """Where several options may be chosen, each lies under its name."""
    node: Any = OmegaConf.to_container(config, resolve=False)
    named = node.get(group)
    named = named if isinstance(named, dict) and "_target_" not in named else {}
    if not named or not all(isinstance(m, dict) and "_target_" in m for m in named.values()):
        yield (
            f"{group} must be {group}s by name. A YAML of yours begins with the line"
            f" '# @package {group}.<its name>'."
        )
    for name in named if group == "metric" else ():
        if name in TAKEN or not str(name).isidentifier():
            taken = ", ".join(TAKEN)
            yield f"metric.{name} needs another name: letters, digits and _, but not {taken}."


def hydra_problems(config: DictConfig) -> Iterator[str]:
    """What in Hydra's own node would run code that is not Hydra's."""
    if config.hydra.callbacks:
        yield "hydra.callbacks cannot be set: it could run code before the check of the settings."
    for path, value in tree.leaves(tree.raw(config.hydra), "hydra"):
        key = path.rpartition(".")[2]
        names_code = key in ("_target_", "()", "class")
        named = str(value).removeprefix("ext://")
        if names_code and not (named.startswith(_HARMLESS) or _SAMPLER.fullmatch(named)):
            yield f"{path}: {value!r} is refused; Hydra's own classes and plugins are allowed here."


def _sweeper_params(config: DictConfig) -> dict[str, str]:
    params: Any = OmegaConf.select(config, "hydra.sweeper.params")
    return {str(key): str(value) for key, value in params.items()} if params else {}


def _late(config: DictConfig) -> Iterator[str]:
    """What comes only after the end of the run; lengths in different units are not compared."""
    lengths = [
        ("checkpoint.every", "only the last checkpoint is written; a crash loses the whole run."),
        ("train.evaluate_every", "the network is evaluated once, at the end."),
    ]
    try:
        whole = Duration.parse(config.train.duration, "train.duration")
        parsed = [(n, Duration.parse(OmegaConf.select(config, n), n), told) for n, told in lengths]
    except (ProgtrainError, SettingError, OmegaConfBaseException):
        return  # a multirun may have these values among others
    for name, length, told in parsed:
        if length.unit is whole.unit and length.value > whole.value:
            yield f"{name}={OmegaConf.select(config, name)} is longer than the run: {told}"


def _warnings(
    command: Command, config: DictConfig, parsed: Sequence[Override], params: dict[str, str]
) -> Iterator[str]:
    counts = Counter(key_of(text) for text in command.overrides)
    for key, times in counts.items():
        if times > 1:
            last = next(o for o in reversed(command.overrides) if key_of(o) == key)
            value = last.partition("=")[2]
            yield f"{key} is given {'twice' if times == 2 else f'{times} times'}; using {value}."
    if command.config_dir is not None:
        yield from surprises(Path(command.config_dir))
    yield from _late(config)
    if command.mode is Mode.SWEEP and not sweep.varies(parsed, params):
        yield "-m is given but nothing varies: 1 job."
