"""Decides which classes a configuration may name.

A `_target_` is code that will run, so it is progtrain's own or lies in a package that the user
named in `plugins`. The name is looked up first: `progtrain.x.os.system` is not progtrain's.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from omegaconf import DictConfig

from progtrain.command_line import tree
from progtrain.command_line.values import shown
from progtrain.errors import ConfigError, did_you_mean

# exact names outside progtrain that conf/ uses
ALLOWED = tuple(
    f"torchvision.datasets.{name}" for name in ("MNIST", "FashionMNIST", "CIFAR10", "CIFAR100")
)
_PACKAGE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
_NEVER = frozenset({*sys.stdlib_module_names, "hydra", "omegaconf", "yaml"})


def plugins_in(config: DictConfig) -> tuple[str, ...]:
    """The packages that the user allows; raises `ConfigError` for what is no such name."""
    value = tree.value_at(config, "plugins")
    named = [value] if isinstance(value, str) else value or []
    if not isinstance(named, list):
        raise ConfigError(f"plugins must be a list of packages, got {shown(value)}.")
    for name in named:
        if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
            raise ConfigError(f"plugins must be a list of packages, got {shown(name)} in it.")
        if name.partition(".")[0] in _NEVER:
            raise ConfigError(f"plugins is for packages of yours; {name!r} cannot be allowed.")
    return tuple(named)


def allow_from_here(plugins: Sequence[str]) -> None:
    """Let Python find a module that lies next to the user."""
    here = os.getcwd()
    if plugins and here not in sys.path:
        sys.path.append(here)


def locate(name: object, plugins: Sequence[str], partial: bool = False) -> Callable[..., object]:
    """The class or function called `name`; raises `ConfigError` where it may not be used."""
    if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
        raise ConfigError(f"{shown(name)} is no name of a class, such as mypackage.module.Class.")
    root = name.partition(".")[0]
    if not _allowed(name, plugins):
        raise ConfigError(
            f"{name} is not progtrain's. To allow the package: plugins=[{root}]."
            if root not in _NEVER
            else f"{name} is refused: a configuration may not name it."
        )
    found = _import(name)
    if not callable(found) or isinstance(found, ModuleType):
        raise ConfigError(f"{name} is no class or function.")
    home = getattr(found, "__module__", None) or ""
    if name not in ALLOWED and not _allowed(f"{home}.", plugins):
        raise ConfigError(f"{name} is really from {home or 'elsewhere'}; name it there.")
    if name.startswith("progtrain.") and not isinstance(found, type) and not partial:
        raise ConfigError(f"{name} is a function; only classes can be built.")
    return found


def _allowed(name: str, plugins: Sequence[str]) -> bool:
    packages = ("progtrain", *plugins)
    return name in ALLOWED or any(name.startswith(f"{package}.") for package in packages)


def _import(name: str) -> object:
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found: object = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise ConfigError(f"{module_name} needs {error.name!r}, which is missing.") from error
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{module_name} cannot be imported: {told}.") from error
        for part in parts[cut:]:
            near = did_you_mean(part, [key for key in vars(found) if not key.startswith("_")])
            if not hasattr(found, part):
                raise ConfigError(f"{module_name} has no {part!r}.{near}")
            found = getattr(found, part)
        return found
    raise ConfigError(f"No module {parts[0]!r}. It must be installed, or lie in {os.getcwd()}.")
