"""Whether the network takes what the data give, as far as settings tell."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from progtrain.command_line import tree
from progtrain.command_line.classes import TRAINS


def misfits(config: DictConfig) -> Iterator[str]:
    """What networks of ours are told of samples and classes, where the data say otherwise."""
    trains = config.get("task", "train") in TRAINS
    if not all(isinstance(config.get(part), DictConfig) for part in ("model", "data")):
        return
    if not (trains and str(tree.value_at(config, "model._target_")).startswith("progtrain.")):
        return
    shape, given = (tree.value_at(config, f"{part}.shape") for part in ("model", "data"))
    if isinstance(shape, list) and isinstance(given, list) and shape != given:
        told, want = ("×".join(map(str, each)) for each in (given, shape))
        yield f"Samples are {told} (data.shape) but model.shape is {want}. Leave model.shape out."
    classes, most = (tree.value_at(config, f"{part}.num_classes") for part in ("model", "data"))
    images = isinstance(given, list) and len(given) == 3  # classes of text are counted later
    if images and isinstance(classes, int) and isinstance(most, int) and classes < most:
        yield (
            f"The data have {most} classes (data.num_classes) but model.num_classes={classes}."
            f" Leave model.num_classes out, or use {most} or more."
        )
