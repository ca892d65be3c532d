"""`data.num_classes: null` follows from the data; a check assumes some, a run asks the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from progtrain.command_line import tree
from progtrain.errors import ConfigError

_ASSUMED = 256
_SETTING = "data.num_classes"
TRAINS = ("train", "plan")  # tasks; others say what does not fit of their checkpoint


def assume(config: DictConfig) -> bool:
    """Whether the data must be asked; until then there is a number to check with.

    So a check reads no data; no part refuses a number of classes that only the data can tell.
    """
    data = config.get("data")
    # unresolved: what leads nowhere is told by the check of all settings
    plain: Any = tree.raw(data) if isinstance(data, DictConfig) else {}
    null = "num_classes" in plain and plain["num_classes"] is None
    if null:
        OmegaConf.update(config, _SETTING, _ASSUMED)
    return null


def settle(config: DictConfig, uncounted: bool, build: Callable[[], Any]) -> None:
    """Where `uncounted`, ask the data, which `build` makes, how many classes there are.

    Raises `ConfigError` where they cannot tell, and for a model with fewer.
    """
    if uncounted:
        OmegaConf.update(config, _SETTING, None)
        data = build()
        if not hasattr(data, "count_classes"):
            target = tree.value_at(config, "data._target_")
            raise ConfigError(f"{_SETTING} needs a value: {target} cannot count its classes.")
        OmegaConf.update(config, _SETTING, int(data.count_classes()))
    if config.get("task", "train") not in TRAINS:
        return
    needed, has = (OmegaConf.select(config, f"{node}.num_classes") for node in ("data", "model"))
    if isinstance(needed, int) and isinstance(has, int) and has < needed:
        raise ConfigError(
            f"model.num_classes={has} is less than the {needed} classes of the data. Leave it out:"
            f" it follows {_SETTING}."
        )
