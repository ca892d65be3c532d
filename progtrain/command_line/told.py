"""What is told and stored of a run's settings: choices, all values without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from progtrain.command_line import tree
from progtrain.command_line.names import SEVERAL

_SECRET = re.compile(r"(?i)secret|passw|credential|api_?key|(^|[._])(token|key)$")


def choices(config: DictConfig) -> dict[str, str]:
    """Which option of each group was chosen; Hydra does not tell of a list of them."""
    if not HydraConfig.initialized():
        return {}
    chosen = {str(k): str(v) for k, v in HydraConfig.get().runtime.choices.items()}
    chosen |= {group: ",".join(map(str, config[group])) for group in SEVERAL}
    ours = [name for name in chosen if not name.startswith("hydra") and chosen[name] != "None"]
    return {name: chosen[name] for name in sorted(ours, key=_place)}


def _place(group: str) -> tuple[int, str]:
    """What a reader wants to know first comes first."""
    first = ("model", "data", "growth", "growth/choice", "widen", "deepen", "warmup")
    return (first.index(group) if group in first else len(first), group)


def resolved(config: DictConfig) -> dict[str, Any]:
    """All settings as plain data; what looks like a secret is masked."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    OmegaConf.set_struct(shadow := OmegaConf.create(plain), False)
    for path, value in tree.leaves(tree.raw(config)):
        secret = _SECRET.search(path) or ("oc.env" in str(value) and _SECRET.search(str(value)))
        if secret and isinstance(value, str):
            OmegaConf.update(shadow, path, "***")
    masked: Any = OmegaConf.to_container(shadow)
    return masked


def write_config(config: Mapping[str, Any], directory: Path) -> None:
    """Store `config.yaml` in one piece."""
    part = directory / f".config.yaml.{os.getpid()}"
    part.write_text(OmegaConf.to_yaml(OmegaConf.create(dict(config))), encoding="utf-8")
    part.replace(directory / "config.yaml")
