"""What the settings say of metrics: which are counted, and which way is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from progtrain.command_line import tree
from progtrain.command_line.session import conf_directory
from progtrain.command_line.targets import allow_from_here, locate, plugins_in
from progtrain.errors import ProgtrainError
from progtrain.metrics import choosing, smaller_is_better

if TYPE_CHECKING:
    from progtrain.contracts import Metric

NONE = "none"  # the option that counts nothing beside the loss


class _Directions(Mapping[str, bool]):
    """Of each chosen metric whether less is better; its class is imported when that is asked."""

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        node = config.get("metric")
        named = node if isinstance(node, DictConfig) and "_target_" not in node else {}
        self._names = [str(name) for name in named if str(name) != NONE]

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> bool:
        if name not in self._names:
            raise KeyError(name)
        try:
            return _smaller(self._config, f"metric.{name}")
        except ProgtrainError:
            return False  # the check of all settings tells what is wrong


def _smaller(config: DictConfig, path: str) -> bool:
    plugins = plugins_in(config)
    allow_from_here(plugins)
    kind: object = locate(tree.value_at(config, f"{path}._target_"), plugins)
    told = getattr(kind, "smaller", None)
    if told is not None and not isinstance(told, bool) and dataclasses.is_dataclass(kind):
        told = getattr(instantiate(OmegaConf.select(config, path)), "smaller", None)
    if isinstance(told, bool):
        return told
    return getattr(kind, "higher_is_better", None) is False  # of torchmetrics


def counted(config: DictConfig, any_mode: bool = False) -> AbstractContextManager[None]:
    """Within it, names of metrics are those that the settings choose.

    Where train.mode is null it gets a value, what is better of train.metric; with `any_mode` just
    any, where a class shall be imported for no more than the form of the settings.
    """
    shipped = sorted(path.stem for path in (conf_directory() / "metric").glob("*.yaml"))
    directions = _Directions(config)
    with choosing(directions):
        _derive_mode(config, any_mode)
    return choosing(directions, [name for name in shipped if name != NONE])


def adapted(made: Mapping[str, object]) -> dict[str, Metric]:
    """The chosen metrics as evaluations count them."""
    from progtrain.metrics import library

    return {name: library.adapted(name, part) for name, part in made.items() if name != NONE}


def _derive_mode(config: DictConfig, any_mode: bool) -> None:
    train = config.get("train")
    node = OmegaConf.to_container(train, resolve=False) if isinstance(train, DictConfig) else None
    if isinstance(node, dict) and node.get("mode", "") is None:
        better = "max" if any_mode else _better(config)
        OmegaConf.update(config, "train.mode", better, merge=False)


def notes(config: DictConfig) -> Iterator[str]:
    """What a reader of the settings would not expect of the metric."""
    mode, better, metric = config.train.mode, _better(config), config.train.metric
    if mode != better:
        more = "less" if better == "min" else "more"
        yield f"train.mode={mode}, although {more} of {metric} is better; null follows the metric"


def _better(config: DictConfig) -> str:
    try:
        metric = tree.value_at(config, "train.metric")
    except Exception:  # a reference that leads nowhere: the check of all settings tells it
        return "max"
    return "min" if isinstance(metric, str) and smaller_is_better(metric) else "max"
