"""Reads each YAML once, however often a command composes: half of composing is reading."""

from __future__ import annotations

import copy

from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource


class Once(IConfigRepository):
    """The files of `inner`; each asker gets copies of his own, as Hydra changes what it is given.

    Hydra copies its repository for each thing that it composes: the copies share what was read.
    """

    def __init__(self, inner: IConfigRepository, known: dict[str, ConfigResult | None]) -> None:
        self._inner, self._known = inner, known

    def __deepcopy__(self, memo: dict[int, object]) -> Once:
        return Once(copy.deepcopy(self._inner, memo), self._known)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self._known:
            self._known[config_path] = self._inner.load_config(config_path)
        return copy.deepcopy(self._known[config_path])

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Look in other places (`hydra.searchpath`), where other files may lie."""
        self._inner.initialize_sources(config_search_path)
        self._known = {}

    def get_schema_source(self) -> ConfigSource:
        return self._inner.get_schema_source()

    def group_exists(self, config_path: str) -> bool:
        return self._inner.group_exists(config_path)

    def config_exists(self, config_path: str) -> bool:
        return self._inner.config_exists(config_path)

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        return self._inner.get_group_options(group_name, results_filter)

    def get_sources(self) -> list[ConfigSource]:
        return self._inner.get_sources()
