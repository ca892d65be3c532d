"""Checks the names in settings: groups, options, keys. Needs no class, so it answers at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from progtrain.command_line import tree
from progtrain.command_line.session import Session
from progtrain.command_line.typos import suggestion
from progtrain.errors import ConfigError, did_you_mean

SEVERAL = (
    "monitor",
    "augment",
    "metric",
    "logger",
)  # groups of which several options may be chosen: monitor=[slow,shock]
_OPTION = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_/-]*$")
_SYNONYMS = {"cuda": "gpu"}  # what others call an option
_DECIMAL_COMMA = re.compile(r"^-?\d+,\d+$")


@dataclass
class Draft:
    """A job's configuration as far as its settings could be applied."""

    config: DictConfig | None = None
    problems: list[str] = field(default_factory=lambda: list[str]())
    touched: list[str] = field(default_factory=lambda: list[str]())  # settings given by hand


def draft(session: Session, overrides: Sequence[Override]) -> Draft:
    """Compose a job of what is right, and say what is wrong with the rest."""
    made = Draft()
    chosen: list[str] = []
    settings: list[Override] = []
    for override in overrides:
        if override.key_or_group not in session.groups:
            settings.append(override)
        elif problem := option_problem(session, override):
            made.problems.append(problem)
        else:
            chosen.append(str(override.input_line))
    try:
        made.config = session.compose(chosen)
    except ConfigError as error:
        made.problems.append(str(error))
        return made
    for override in settings:
        problem = setting_problem(session, made.config, override)
        problem = problem or apply(made.config, override)
        made.touched.append(override.key_or_group)
        if problem:
            made.problems.append(problem)
    return made


def option_problem(session: Session, override: Override) -> str | None:
    """What is wrong with `group=option`."""
    group, value = override.key_or_group, override.value()
    options = session.options(group)
    if override.is_sweep_override():
        return f"{override.input_line} is a sweep: add -m."
    if override.is_delete() or value is None or value == "":
        return f"{group} is required; choose one: {', '.join(options)}."
    if isinstance(value, list) and group in SEVERAL:
        return _options_problem(group, [str(item) for item in value], options)
    if isinstance(value, list):
        both = ",".join(str(item) for item in value)
        told = both.replace(",", ", ")
        return f"Choose one {group}, got {len(value)}: {told}. To try each: -m {group}={both}."
    if isinstance(value, dict):
        return f"{group} takes the name of an option, or set {group}.<setting>=<value>."
    return _one_option_problem(group, str(value), options)


def _options_problem(group: str, chosen: Sequence[str], options: Sequence[str]) -> str | None:
    """What is wrong with `group=[one,other]`."""
    if not chosen:
        return f"{group}=[] chooses nothing: write {group}=none."
    if len(set(chosen)) < len(chosen):
        return f"{group}=[{','.join(chosen)}] names one option twice."
    problems = (_one_option_problem(group, option, options) for option in chosen)
    return next((problem for problem in problems if problem), None)


def _one_option_problem(group: str, option: str, options: Sequence[str]) -> str | None:
    if not _OPTION.fullmatch(option):
        return f"{group}={option!r} is no name of an option. Available: {', '.join(options)}."
    if option not in options:
        near = did_you_mean(_SYNONYMS.get(option, option), options)
        return f"Unknown {group} {option!r}.{near} Available: {', '.join(options)}."
    return None


def setting_problem(session: Session, config: DictConfig, override: Override) -> str | None:
    """What is wrong with the name in `setting=value`, or with giving it a value there."""
    name = override.key_or_group
    place = tree.find(config, name)
    if place.alias:
        refers = str(dict(tree.leaves(tree.raw(config)))[place.alias])
        instead = refers.strip("${}") + name.removeprefix(place.alias)
        return f"{place.alias} is {refers}: set {instead} instead of {name}."
    if not place.exists:
        return _unknown(session, config, override, place)
    if override.is_sweep_override():
        return _stray_sweep(override, place.value)
    if override.is_delete():
        return None if place.inside_target else f"{name} cannot be removed; give it a value."
    text = str(override.input_line).partition("=")[2]
    if not text.strip():
        example = "" if place.value is None else f", for example {name}={place.value}"
        return f"{name} needs a value{example}."
    if override.is_add() and not isinstance(override.value(), dict | list):
        return f"{name} exists already: write {name}={text} without '+'."
    if isinstance(place.value, DictConfig) and not isinstance(override.value(), dict):
        inner = [f"{name}.{key}" for key in place.value if not str(key).startswith("_")]
        if inner and (override.value() is not None or not place.inside_target):
            return f"{name} holds settings of its own: set {', '.join(inner[:4])}."
    return None


def _unknown(
    session: Session, config: DictConfig, override: Override, place: tree.Place
) -> str | None:
    name = override.key_or_group
    adds = override.is_add() or override.is_force_add()
    ours = not name.startswith("hydra.")
    if adds and (place.inside_target or not ours):
        return None  # the signature of the target decides, once the class is known
    known = [n for n in tree.names(tree.raw(config)) if n.startswith("hydra") != ours]
    near = suggestion(name, [*session.groups, *known] if ours else known)
    if adds:
        return f"Unknown setting {name!r} (added with '+'): progtrain has no such setting.{near}"
    if _takes_more(place):
        near = suggestion(name, [n for n in known if n.startswith(f"{place.holder}.")])
        return f"Unknown setting {name!r}.{near} To add it: +{override.input_line}"
    return f"Unknown setting {name!r}.{near}"


def _takes_more(place: tree.Place) -> bool:
    """Whether the user may add here: to growth.stages and its like, or to a class of his own."""
    if not isinstance(place.value, DictConfig) or not place.inside_target:
        return False
    target = place.value.get("_target_")
    return target is None or not str(target).startswith("progtrain.")


def _stray_sweep(override: Override, current: object) -> str:
    """Several values where one is wanted."""
    name, text = override.key_or_group, str(override.input_line).partition("=")[2]
    if isinstance(current, float) and _DECIMAL_COMMA.fullmatch(text):
        one, two = text.split(",")
        written = f"write {one}.{two}, or add -m to sweep over {one} and {two}"
        return f"{name}: {text!r} looks like a decimal comma; {written}."
    listed = f" For a list write {name}=[{text}]." if "," in text and "(" not in text else ""
    return f"{override.input_line} is a sweep: add -m.{listed}"


def apply(config: DictConfig, override: Override) -> str | None:
    """Set the value as Hydra will."""
    name, value = override.key_or_group, override.value()
    adds = override.is_add() or override.is_force_add()
    try:
        if override.is_delete():
            holder, _, key = name.rpartition(".")
            node = OmegaConf.select(config, holder)
            OmegaConf.set_struct(node, False)
            del node[key]
        else:
            OmegaConf.update(config, name, value, merge=True, force_add=adds)
    except OmegaConfBaseException as error:
        return f"{override.input_line} does not fit: {str(error).splitlines()[0]}."
    return None
