"""Holds the settings of every class in a configuration against the class's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from omegaconf import DictConfig

from progtrain.command_line import tree
from progtrain.command_line.targets import allow_from_here, locate, plugins_in
from progtrain.command_line.typos import suggestion
from progtrain.command_line.values import Verdict, fit, shown
from progtrain.errors import ConfigError

_RESERVED = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
_MISSING = inspect.Parameter.empty
_ANY = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class Finding:
    """One thing about a setting: a problem, or its value in the declared type."""

    node: str
    setting: str
    problem: str = ""
    fitted: object = None


def check(config: DictConfig, relevant: Callable[[str], bool] = lambda _: True) -> list[Finding]:
    """Look at every node with a `_target_` for which `relevant(name)`, building nothing."""
    try:
        plugins = plugins_in(config)
    except ConfigError as error:
        return [Finding("plugins", "plugins", str(error))]
    allow_from_here(plugins)
    findings: list[Finding] = []
    for path, node in tree.targets(tree.raw(config)):
        if not relevant(path):
            continue
        partial = bool(tree.value_at(config, _inside(path, "_partial_")))
        try:
            name = tree.value_at(config, _inside(path, "_target_"))
            target = locate(name, plugins, partial)
        except ConfigError as error:
            setting = _inside(path, "_target_")
            findings.append(Finding(path, setting, f"{setting}: {error}"))
        else:
            findings += _findings(config, path, node, parameters(target), partial)
    return findings


def parameters(target: Callable[..., object]) -> Mapping[str, inspect.Parameter] | None:
    """What `target` takes by name; None where Python cannot tell, as for C functions."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):
        return None


def _inside(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _findings(
    config: DictConfig,
    path: str,
    node: Mapping[str, object],
    takes: Mapping[str, inspect.Parameter] | None,
    partial: bool,
) -> Iterator[Finding]:
    if takes is None:
        return
    if not any(parameter.kind is _ANY[0] for parameter in takes.values()):
        for name in (_inside(path, key) for key in node if key not in (*takes, *_RESERVED)):
            near = suggestion(name, [_inside(path, key) for key in takes])
            yield Finding(path, name, f"Unknown setting {name!r}.{near}")
    complete = partial or "_args_" in node
    for key, parameter in takes.items():
        name = _inside(path, key)
        if parameter.kind in _ANY or node.get(key) == "???":  # `tree.unresolved` tells it
            continue
        if key in node:
            yield from _value(config, path, name, parameter)
        elif parameter.default is _MISSING and not complete:
            yield Finding(path, name, f"{name} needs a value: write +{name}=<value>.")


def _value(
    config: DictConfig, path: str, name: str, parameter: inspect.Parameter
) -> Iterator[Finding]:
    verdict, value = _verdict(config, name, parameter)
    if verdict.allowed:
        told = f"{name} must be {verdict.allowed}, got {shown(value)}. {verdict.hint}"
        yield Finding(path, name, told.rstrip())
    elif verdict.value is not value:
        yield Finding(path, name, fitted=verdict.value)


def _verdict(config: DictConfig, name: str, parameter: inspect.Parameter) -> tuple[Verdict, object]:
    """The verdict on a setting, and its value."""
    try:
        value = tree.value_at(config, name)
    except Exception:  # a reference that leads nowhere, or in a circle: `tree.unresolved` tells it
        return Verdict(None), None
    built = isinstance(value, dict) and "_target_" in value
    if parameter.annotation is _MISSING or built:
        return Verdict(value), value
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        annotation = inspect.formatannotation(annotation)
    return fit(value, annotation), value
