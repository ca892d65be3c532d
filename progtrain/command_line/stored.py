"""The settings that a checkpoint holds, as a configuration that may build again.

They are data of unknown origin: nothing in them is resolved (no reference, no environment
variable), and a class is progtrain's own or lies in a package that is named now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from progtrain.checkpoint.format import Checkpoint
from progtrain.command_line import tree
from progtrain.command_line.targets import allow_from_here, locate
from progtrain.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from progtrain.build import ModelFactory


def settings_of(saved: Checkpoint) -> dict[str, Any]:
    """What the run was told, as plain data."""
    config: Any = saved.documents.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise CheckpointError(f"{saved.path} holds no settings of a run.")
    if any(isinstance(value, str) and "${" in value for _, value in tree.leaves(config)):
        raise CheckpointError(f"The settings in {saved.path} hold references; a run stores none.")
    return config


def setting(saved: Checkpoint, name: str) -> object:
    """One setting by its full name; None where there is none."""
    node: object = settings_of(saved)
    for part in name.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def model_of(
    saved: Checkpoint, plugins: Sequence[str]
) -> tuple[ModelFactory, dict[str, int | float]]:
    """What builds the run's model, and the settings of the network that it started with."""
    from progtrain.build import ModelFactory

    config = OmegaConf.create({**settings_of(saved), "plugins": list(plugins)})
    allow_from_here(plugins)
    _allow(config, "model", plugins)
    growth: Any = config.get("growth") or {}
    if str(growth.get("_target_")).startswith("progtrain.") and "start" in growth:
        start: Any = OmegaConf.to_container(growth["start"])
    else:
        _allow(config, "growth", plugins)
        policy: Any = instantiate(growth, _convert_="all")
        start = policy.start
    return ModelFactory(config), dict(start)


def _allow(config: DictConfig, path: str, plugins: Sequence[str]) -> None:
    """Raise `ConfigError` where a node names a class that may not be named."""
    for place, node in tree.targets(tree.value_at(config, path), path):
        try:
            locate(node["_target_"], plugins, bool(node.get("_partial_")))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error


def with_defaults(saved: Checkpoint, defaults: Mapping[str, Any]) -> DictConfig:
    """The stored settings; what progtrain has learnt since has its default."""
    return OmegaConf.create({**defaults, **settings_of(saved)})
