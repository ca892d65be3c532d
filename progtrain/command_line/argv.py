"""Reads the command line before Hydra does: flags, settings, and what is refused outright."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from progtrain.errors import ConfigError

# These run code before, or instead of, the check of the configuration.
_CLOSED = ("hydra.callbacks", "hydra.job_logging", "hydra.hydra_logging", "hydra.searchpath")
_LOGGING = ("default", "disabled", "none", "stdout", "colorlog")
_KEY = re.compile(r"^[+~]*([^=]*)")


class Mode(Enum):
    """What a command asks for."""

    RUN = "run"
    SWEEP = "sweep"
    SHOW = "show"  # the composed config: --cfg, --info
    TEXT = "text"  # help and shell completion, which need no composed config of ours


@dataclass(frozen=True)
class Command:
    """A command line, taken apart."""

    mode: Mode
    flags: tuple[str, ...]  # for Hydra, without the settings
    overrides: tuple[str, ...]  # settings as typed
    config_dir: str | None = None
    config_name: str = "config"
    problems: tuple[str, ...] = ()
    misspelt: frozenset[str] = frozenset()  # those of `overrides` that are no settings

    @property
    def asks_help(self) -> bool:
        """Whether it asks for our help, not for Hydra's."""
        return "--help" in self.flags and "--hydra-help" not in self.flags

    @property
    def argv(self) -> list[str]:
        """The arguments in an order that Hydra's own parser takes."""
        own = ["--config-name", self.config_name] if self.config_name != "config" else []
        own += ["--config-dir", self.config_dir] if self.config_dir else []
        return [*self.flags, *own, *self.overrides]


def read(argv: Sequence[str]) -> Command:
    """Take a command line apart; what is wrong with it is in `problems`."""
    parser = get_args_parser()
    parser.error = _refuse
    args, rest = parser.parse_known_args(list(argv))
    dashed = [text for text in rest if text.startswith("-")]
    words = [text for text in argv if text in args.overrides or text in rest]
    overrides = [text for text in words if text not in dashed]
    problems = [_dashed(text, parser) for text in dashed]
    if args.experimental_rerun is not None:
        problems.append("--experimental-rerun is refused: it would run code from that file.")
    if args.config_path is not None:
        problems.append("--config-path is not supported. --config-dir adds a directory of yours.")
    mode = _mode(args)
    misspelt: dict[str, str] = {}
    if mode is not Mode.TEXT or args.help or args.hydra_help:
        misspelt = {text: told for text in overrides if (told := _spelling(text))}
    return Command(
        mode=mode,
        flags=tuple(_flags(args)),
        overrides=tuple(overrides),
        config_dir=args.config_dir,
        config_name=args.config_name or "config",
        problems=(*problems, *misspelt.values()),
        misspelt=frozenset(misspelt),
    )


def key_of(override: str) -> str:
    """The setting that an override names: `model.width` for `+model.width=3`."""
    match = _KEY.match(override)
    return match.group(1).strip() if match else override


def _mode(args: argparse.Namespace) -> Mode:
    if args.help or args.hydra_help or args.shell_completion:
        return Mode.TEXT
    if args.cfg or args.info:
        return Mode.SHOW
    swept = args.multirun or any(o.lower() == "hydra.mode=multirun" for o in args.overrides)
    return Mode.SWEEP if swept else Mode.RUN


def _flags(args: argparse.Namespace) -> list[str]:
    switches = ("help", "hydra_help", "resolve", "run", "multirun", "shell_completion")
    flags = [f"--{name.replace('_', '-')}" for name in switches if getattr(args, name)]
    valued = [name for name in ("cfg", "info", "package") if getattr(args, name) is not None]
    return flags + [f"--{name}={getattr(args, name)}" for name in valued]


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message[0].upper()}{message[1:]}. `progtrain --help` shows what there is.")


def _dashed(text: str, parser: argparse.ArgumentParser) -> str:
    known = [flag for action in parser._actions for flag in action.option_strings]  # pyright: ignore[reportPrivateUsage]
    close = get_close_matches(text.partition("=")[0], known, 1, cutoff=0.75)
    if close:
        return f"Unknown option {text!r}. Did you mean {close[0]!r}?"
    setting = text.lstrip("-")
    example = setting if "=" in setting else f"{setting}=<value>"
    return f"Settings take no dashes: {example}."


def _spelling(override: str) -> str | None:
    """What is wrong with the form of one setting, whatever its name."""
    if override == "=":
        return "Write settings without spaces around '=': setting=value."
    _, equals, value = override.partition("=")
    name = key_of(override)
    if not equals and not override.startswith("~"):
        return f"{override!r} is not a setting=value pair."
    if _open_quote(value):
        return f"Unclosed quote in: {override}"
    if any(name == closed or name.startswith(f"{closed}.") for closed in _CLOSED):
        return f"{name} cannot be set: it could run code before the check of the settings."
    group = name.replace("/", ".")
    if group in _CLOSED and value not in _LOGGING:
        return f"{name} cannot be set to {value!r}; allowed: {', '.join(_LOGGING)}."
    return None


def _open_quote(value: str) -> bool:
    quote = value[:1]
    if quote not in ("'", '"'):
        return False
    unescaped = re.sub(r"\\.", "", value)
    return unescaped.count(quote) % 2 == 1
