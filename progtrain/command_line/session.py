"""Hydra's loader over our conf/ and the user's: groups, options, parsing, composing."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from string import Template

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from progtrain.command_line import resolvers
from progtrain.command_line.argv import Command, key_of
from progtrain.command_line.recipes import release
from progtrain.errors import ConfigError

VERSION_BASE = "1.3"
resolvers.register()


def conf_directory() -> Path:
    """Where our YAML lies: in the package of a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for place in (package / "conf", package.parent / "conf"):
        if (place / "config.yaml").is_file():
            return place
    raise FileNotFoundError(f"progtrain's conf/ lies neither in {package} nor beside it")


class Session:
    """One loader; it reads YAML once for each distinct thing that it composes."""

    def __init__(self, loader: ConfigLoaderImpl, config_name: str) -> None:
        self._loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._config_name = config_name
        self._composed: dict[tuple[tuple[str, ...], RunMode], DictConfig] = {}
        self.groups = tuple(self._groups(""))

    @cached_property
    def defaults(self) -> Sequence[str]:
        """Names of the top level of our own config.yaml."""
        config = self._loader.load_configuration("config", [], RunMode.RUN)
        return [str(name) for name in config]

    def options(self, group: str) -> list[str]:
        """What a group may be set to."""
        return self._loader.repository.get_group_options(group, ObjectType.CONFIG)

    def _groups(self, parent: str) -> Iterator[str]:
        for name in self._loader.repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if self.options(group):
                yield group
            yield from self._groups(group)

    def help(self, overrides: Sequence[str]) -> str | None:
        """The text of `--help`; None where its template asks for more than the groups.

        Hydra would copy all that it has read, once a group, to say the same.
        """
        config = self.compose(overrides)
        HydraConfig.instance().set_config(config)
        template = Template(str(config.hydra.help.template))
        if set(template.get_identifiers()) - {"APP_CONFIG_GROUPS"}:
            return None
        ours = sorted(group for group in self.groups if group.split("/")[0] != "hydra")
        lines = [f"{group}: {', '.join(sorted(self.options(group)))}\n" for group in ours]
        return template.substitute(APP_CONFIG_GROUPS="".join(lines))

    def parse(self, text: str) -> Override:
        """Raise `ConfigError` where `text` is no setting."""
        try:
            return self._parser.parse_overrides([text])[0]
        except HydraException as error:
            reason = str(error).splitlines()[0].removeprefix("LexerNoViableAltException: ")
            same = reason == text or text in reason
            told = "" if same else f": {reason}"
            hint = "Quote values with special characters: key=\"'a b'\"."
            raise ConfigError(f"{text!r} cannot be read{told}. {hint}") from error

    def compose(self, overrides: Sequence[str], sweep: bool = False) -> DictConfig:
        """The whole tree, Hydra's own node included."""
        key = tuple(overrides), RunMode.MULTIRUN if sweep else RunMode.RUN
        if key not in self._composed:
            self._composed[key] = self._compose(*key)
        return copy.deepcopy(self._composed[key])

    def _compose(self, overrides: Sequence[str], mode: RunMode) -> DictConfig:
        try:
            config = self._loader.load_configuration(self._config_name, list(overrides), mode)
            choices = config.hydra.runtime.choices
            release(config, choices, self._folders(), [key_of(text) for text in overrides])
            return config
        except yaml.MarkedYAMLError as error:
            raise ConfigError(_yaml_problem(error)) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self._file_of(error.object)} is not UTF-8.") from error
        except RecursionError as error:
            raise ConfigError("A configuration file is nested too deeply.") from error
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            raise ConfigError(_compact(f"{error}{cause}")) from error

    def _folders(self) -> list[Path]:
        """Where YAML is looked for, the user's folder first."""
        return [Path(s.path) for s in self._loader.get_sources() if s.scheme() == "file"]

    def _file_of(self, content: bytes) -> str:
        """The YAML file that begins with `content`."""
        files = (path for folder in self._folders() for path in folder.rglob("*.yaml"))
        return next((str(p) for p in files if p.read_bytes()[: len(content)] == content), "A file")


@contextmanager
def opened(command: Command, conf: Path | None = None) -> Generator[Session]:
    """A session for `command`; Hydra allows one at a time."""
    version.setbase(VERSION_BASE)
    path = create_config_search_path(str(conf or conf_directory()))
    if command.config_dir is not None:
        place = Path(command.config_dir).absolute()
        if not place.is_dir():
            raise ConfigError(f"Config directory not found: {place}.")
        path.prepend("command-line", f"file://{place}", SearchPathQuery(provider="schema"))
    try:
        loader = Hydra.create_main_hydra2("progtrain", path).config_loader
        assert isinstance(loader, ConfigLoaderImpl)
        yield Session(loader, command.config_name)
    finally:
        GlobalHydra.instance().clear()


def given(overrides: Sequence[str], key: str) -> object:
    """The value that the command line itself gives `key`; None where it gives none."""
    texts = [text for text in overrides if key_of(text) == key and not text.startswith("~")]
    try:
        value = OverridesParser.create().parse_overrides(texts[-1:])[0].value() if texts else None
    except HydraException:
        return None  # told by the check of all settings
    return None if isinstance(value, Sweep) else value


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """`exp.yaml:7: found a tab...`."""
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}:{mark.line + 1}: " if mark else ""
    problem = error.problem or error.context or "not YAML"
    tabs = "\\t" in problem
    return f"{where}{'tabs are not allowed in YAML; use spaces' if tabs else problem}."


def _compact(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
