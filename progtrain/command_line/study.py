"""`progtrain study=NAME`: arms × seeds, declared before, checked before, compared at the end.

The jobs are those of a Hydra multirun whose sweeper is `hydra_plugins.progtrain_study`; settings
on the command line are those of every job.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from progtrain.clock import Duration, Unit
from progtrain.command_line import directory, job, resume, sweepers, told
from progtrain.command_line.argv import Command, Mode, key_of
from progtrain.command_line.check import job_problems, parsed_words
from progtrain.command_line.names import option_problem, setting_problem
from progtrain.command_line.session import Session, given, opened
from progtrain.command_line.values import shown
from progtrain.errors import BusyError, ConfigError, SettingError, report
from progtrain.metrics import smaller_is_better
from progtrain.study import file
from progtrain.study.declaration import Arm, Declaration, declared, seed_problem
from progtrain.study.jobs import Job, jobs, left

_SIGNALLED = (130, 143)  # exit codes of a job that a signal ended


@dataclass(frozen=True)
class _Prepared:
    study: file.Study  # of this command alone
    jobs: list[Job]
    place: Path
    words: tuple[str, ...]  # settings of Hydra itself
    warnings: tuple[str, ...]

    def count(self) -> Counter[str]:
        return Counter(each.status(self.place) for each in self.jobs)


def wanted(command: Command) -> bool:
    """Whether the command is about a study, and more than a look at its settings."""
    if command.mode in (Mode.TEXT, Mode.SHOW):
        return False
    named = [text for text in command.overrides if key_of(text) == "study"]
    return bool(named) and named[-1].partition("=")[2].strip() not in ("null", "")


def run(command: Command, launch: Callable[[Command], int]) -> int:
    """Check all jobs, run what is not done, compare; the exit code. `launch` starts Hydra."""
    prepared = _prepared(command)
    for warning in prepared.warnings:
        print(f"warning: {job.printable(warning)}", file=sys.stderr)
    if given(command.overrides, "task") == "plan":
        return _listed(prepared)
    place = directory.take(prepared.place, shared=True)
    study = file.merged(file.read(place), prepared.study, place)
    file.write(study, place)
    done, every = prepared.count()["done"], len(prepared.jobs)
    print(f"study {study.name} in {place}: {done} of {every} jobs were done", flush=True)
    if not left(prepared.jobs, place, again=True):
        return _compared(prepared)
    try:
        code = launch(replace(command, mode=Mode.SWEEP, flags=("--multirun",),
                              overrides=prepared.words))  # fmt: skip
    except KeyboardInterrupt:
        _tell_interrupted(prepared)
        raise
    if code in _SIGNALLED:
        _tell_interrupted(prepared)
    return _compared(prepared) if code in (0, 1) else code


def _prepared(command: Command) -> _Prepared:
    """Everything that can be wrong is told here, before anything is written."""
    with opened(command) as session:
        parsed, problems = parsed_words(session, command)
        if problems:
            raise ConfigError(report(problems))
        name, own = _named(session, parsed)
        raw: Any = OmegaConf.to_container(_composed(session, name, own), resolve=True)
        node: dict[str, Any] = raw
        typed = [o for o in parsed if o not in own and not o.is_hydra_override()]
        node, typed = _with_seeds(node, own, typed)
        study = declared(node, name)
        if problems := list(_refused(typed)):
            raise ConfigError(report(problems))
        hydra = [str(o.input_line) for o in parsed if o.is_hydra_override()]
        words = [str(o.input_line) for o in typed if o.key_or_group != "task"]
        arms, mode = _arms(session, command, study, hydra, words)
        place = _place(session, hydra, study.name)
        listed = jobs([(arm.name, arm.overrides) for arm in arms], study.seeds)
        _refuse_changes(session, listed, place)
        warnings = tuple(sweepers.warnings(session.compose(hydra, sweep=True)))
    whole = file.Study(study.name, study.title, study.metric, mode, study.margin, study.seeds,
                       tuple(arms), shlex.join(["progtrain", *command.argv]))  # fmt: skip
    others = [text for text in hydra if key_of(text) not in ("hydra.sweep.dir", "hydra/sweeper")]
    names, seeds = ",".join(f"'{arm.name}'" for arm in arms), ",".join(map(str, study.seeds))
    sweeper = (
        "hydra/sweeper=study",
        f"hydra.sweep.dir={resume.quoted(place)}",
        f"hydra.sweeper.arms=[{names}]",
        f"hydra.sweeper.seeds=[{seeds}]",
    )
    return _Prepared(whole, listed, place, (*others, *sweeper), warnings)


def _named(session: Session, parsed: Sequence[Override]) -> tuple[str, list[Override]]:
    """The study's name, and what of the command is about its declaration."""
    own = [o for o in parsed if o.key_or_group == "study" or o.key_or_group.startswith("study.")]
    chosen = [o for o in own if o.key_or_group == "study"][-1]
    if chosen.is_sweep_override():
        raise ConfigError(f"{chosen.input_line}: a command runs one study; give one name.")
    if problem := option_problem(session, chosen):
        raise ConfigError(problem)
    return str(chosen.value()), own


def _composed(session: Session, name: str, own: Sequence[Override]) -> DictConfig:
    config = session.compose([f"study={name}"])
    settings = [o for o in own if o.key_or_group != "study"]
    if problems := [p for o in settings if (p := setting_problem(session, config, o))]:
        raise ConfigError(report(problems))
    node = session.compose([f"study={name}", *(str(o.input_line) for o in settings)]).study
    if not isinstance(node, DictConfig):
        raise ConfigError(f"study={name} declares nothing: it needs metric, seeds and arms.")
    return node


def _with_seeds(
    node: dict[str, Any], own: Sequence[Override], typed: Sequence[Override]
) -> tuple[dict[str, Any], list[Override]]:
    """`seed=0,1` on the command line are the seeds of the study."""
    seeds = [o for o in typed if o.key_or_group == "seed"]
    if not seeds:
        return node, list(typed)
    if any(o.key_or_group == "study.seeds" for o in own):
        raise ConfigError("Give the seeds once: study.seeds=[0,1,2] or seed=0,1,2.")
    last = seeds[-1]
    found = list(last.sweep_iterator()) if last.is_discrete_sweep() else [last.value()]
    if problems := [f"{last.input_line}: {p}" for each in found if (p := seed_problem(each))]:
        raise ConfigError(problems[0])
    return {**node, "seeds": found}, [o for o in typed if o not in seeds]


def _refused(typed: Sequence[Override]) -> Iterator[str]:
    """What would make it another study than the one that is declared."""
    for override in typed:
        name = override.key_or_group
        if name == "task" and override.value() not in ("train", "plan"):
            yield f"{override.input_line} is for one run; a study has task=train and task=plan."
        elif name == "resume":
            yield "A study is continued by the same command: leave resume out."
        elif name == "train.metric":
            yield f"train.metric is the study's: write study.metric={override.value()}."
        elif override.is_sweep_override():
            yield (
                f"{override.input_line}: what a study compares is declared in its arms. Give"
                f" {name} one value for all jobs, or a study of your own an arm with a grid."
            )


def _arms(
    session: Session, command: Command, study: Declaration, hydra: list[str], words: list[str]
) -> tuple[list[file.Told], str]:
    """Arms with all settings of their jobs, and the mode of the metric; raises what is wrong."""
    found, problems, modes = list[file.Told](), dict[str, list[str]](), set[str]()
    own = (f"train.metric={study.metric}", "resume=auto")
    for arm in study.arms:
        settings = resume.merged(resume.merged(study.common, arm.overrides), [*words, *own])
        try:
            told = _told(session, arm, settings)
            parsed = [session.parse(text) for text in (*hydra, *told.overrides)]
            problems[arm.name] = job_problems(session, command, parsed)
        except (ConfigError, SettingError) as error:
            problems[arm.name] = [str(error)]
            continue
        found.append(told)
        smaller = smaller_is_better(study.metric)
        modes.add(str(_train(session, settings, "mode") or ("min" if smaller else "max")))
    if lines := _lines(problems):
        raise ConfigError(report(lines))
    if len(modes) > 1:
        raise ConfigError("Arms have both train.mode=max and train.mode=min; set it in common.")
    return found, modes.pop()


def _train(session: Session, settings: Sequence[str], name: str) -> object:
    """A setting of `train`; composing a job takes its time, so only where a recipe may give it."""
    typed = given(settings, f"train.{name}")
    if typed is not None:
        return typed
    recipes = [text for text in settings if key_of(text) == "experiment"]
    return OmegaConf.select(session.compose(recipes), f"train.{name}")


def _lines(problems: dict[str, list[str]]) -> list[str]:
    """One line a problem, with the arms that have it unless all have."""
    texts = dict.fromkeys(text for each in problems.values() for text in each)
    named = {t: [name for name, each in problems.items() if t in each] for t in texts}
    return [
        text if len(arms) == len(problems) else f"arm {', '.join(arms)}: {text}"
        for text, arms in named.items()
    ]


def _told(session: Session, arm: Arm, settings: Sequence[str]) -> file.Told:
    """The arm with its share of the duration."""
    if arm.budget == 1.0:
        return file.Told(arm.name, arm.kind.value, tuple(settings))
    whole = Duration.parse(_train(session, settings, "duration"), "train.duration")
    exact = whole.unit in (Unit.STEP, Unit.SAMPLE)
    value = whole.value * arm.budget
    length = Duration(max(1, round(value)) if exact else value, whole.unit)
    kept = [text for text in settings if key_of(text) != "train.duration"]
    return file.Told(arm.name, arm.kind.value, (*kept, f"train.duration={length}"))


def _place(session: Session, hydra: Sequence[str], name: str) -> Path:
    named = any(key_of(text) == "hydra.sweep.dir" for text in hydra)
    place = Path("outputs/studies") / name
    if named:
        place = Path(str(OmegaConf.select(session.compose(hydra, sweep=True), "hydra.sweep.dir")))
    if directory.holds_run(place) and not (place / file.NAME).is_file():
        raise BusyError(f"{place} holds runs that are no study. Name another hydra.sweep.dir.")
    return place


def _refuse_changes(session: Session, listed: Sequence[Job], place: Path) -> None:
    """Raise where a job has run with other settings."""
    begun, changed = dict[str, list[Job]](), list[str]()
    for each in listed:
        if (place / each.name / "config.yaml").is_file():
            begun.setdefault(each.arm, []).append(each)
    for arm, mine in begun.items():
        config = session.compose(mine[0].overrides)
        HydraConfig.instance().set_config(config)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        for each in mine:  # an arm's jobs differ in their seeds alone
            OmegaConf.update(config, "seed", each.seed)
            lines = resume.changes(place / each.name, told.resolved(config))
            changed += [f"{arm}: {line}" for line in lines]
    if changed:
        raise ConfigError(file.another(place, list(dict.fromkeys(changed))))


def _listed(prepared: _Prepared) -> int:
    """`task=plan`: what there is to do; nothing is written."""
    for arm in prepared.study.arms:
        mine = [each for each in prepared.jobs if each.arm == arm.name]
        done = sum(each.status(prepared.place) == "done" for each in mine)
        print(f"{arm.name} ({arm.kind}), {done} of {len(mine)} jobs done")
        print(f"  {job.printable(' '.join(arm.overrides))}")
    print(f"{len(prepared.jobs)} jobs, seeds {shown(list(prepared.study.seeds))}, in"
          f" {prepared.place}")  # fmt: skip
    return 0


def _tell_interrupted(prepared: _Prepared) -> None:
    done = prepared.count()["done"]
    print(
        f"{done} of {len(prepared.jobs)} jobs are done. Continue the study by the same command:\n"
        f"{prepared.study.command}",
        file=sys.stderr,
    )


def _compared(prepared: _Prepared) -> int:
    """Say what is not done, compare what is; 1 where a job has failed."""
    status = {each.name: each.status(prepared.place) for each in prepared.jobs}
    for name, what in status.items():
        if what != "done":
            print(f"job {name}: {what}", file=sys.stderr)
    failed = any(what not in ("done", "running") for what in status.values())
    if "done" in status.values():
        from progtrain.command_line.compare import show
        from progtrain.comparison.compare import compare

        show(compare([prepared.place], None), prepared.place)
    return 1 if failed else 0
