"""`progtrain.load`: a grown network out of its checkpoint, as plain modules.

The architecture is data: the settings of the model as the run began, and the list of edits since.
No code comes from the checkpoint. A `_target_` in it must be progtrain's own class, or lie in a
package that the caller names in `plugins`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.read import read
from progtrain.command_line.stored import model_of, setting
from progtrain.errors import CheckpointError, ConfigError
from progtrain.growth.add_head import heads_of
from progtrain.growth.baked import bake
from progtrain.growth.first_block import with_blocks
from progtrain.growth.heads import train_every_head
from progtrain.inputs import Inputs
from progtrain.record import edits_of, events_of
from progtrain.run import Template
from progtrain.state import load_weights

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def load(
    path: str | Path,
    *,
    average: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    plugins: Sequence[str] = (),
) -> nn.Module:
    """The network of a checkpoint in evaluation mode, on `device`, in its own precision or `dtype`.

    `path` is a run's directory (its newest good checkpoint), one of its `step_…`, or what
    `checkpoint.best` keeps. With `average` the moving average of the weights (`train.ema`). Ramps
    that were not over are in the weights or are modules (`growth/baked.py`), and what
    `insert=…` has joined stays a wrapper around what it joined. Of several heads the one that
    answered in evaluation answers.

    Raises `CheckpointError` (damaged, foreign, no average in it) and `ConfigError` for classes of
    packages that `plugins` does not name.
    """
    saved = read(Path(path))
    model = network(saved, plugins, average)
    bake(model, events_of(saved))
    return _placed(model, device, dtype)


def read_inputs(path: str | Path) -> Inputs:
    """What goes with the network of a checkpoint: shape, normalisation, classes, codec."""
    return inputs_of(read(Path(path)))


def inputs_of(saved: Checkpoint) -> Inputs:
    """Raises `CheckpointError` where an older progtrain has stored none."""
    if "inputs" not in saved.documents:
        raise CheckpointError(
            f"{saved.path} was written by an older progtrain and does not say how inputs were"
            " normalised. Continue the run with resume=… for a step, and it will."
        )
    return Inputs.from_json(saved.documents["inputs"])


def network(
    saved: Checkpoint,
    plugins: Sequence[str] = (),
    average: bool = False,
    answers: str | None = None,
) -> nn.Module:
    """The network as it was trained, blends left out; in evaluation mode. The head `answers`
    answers, or the one that did in the run."""
    model = Blueprint.of(saved, plugins).grown(saved)
    weights = saved.tensors.get("average" if average else "model")
    if weights is None:
        raise CheckpointError(
            f"{saved.path} holds no average of the weights. It is kept where train.ema is more than"
            " 0; leave average out for the weights themselves."
        )
    load_weights(model, weights)
    let_answer(model, answers or setting(saved, "train.answers"))
    return model.eval()


def let_answer(model: nn.Module, name: object) -> None:
    """Let a head answer; the newest does where it has none of that name."""
    heads = heads_of(model)
    if heads is not None and isinstance(name, str) and name in heads.heads:
        heads.answers = name


@dataclass(frozen=True)
class Blueprint:
    """What builds the network that a run started with, and blocks for it."""

    blank: Template
    template: Template
    every_head: bool  # whether all heads learn

    @staticmethod
    def of(saved: Checkpoint, plugins: Sequence[str] = ()) -> Blueprint:
        factory, start = model_of(saved, plugins)
        every = setting(saved, "train.heads") == "all"
        template = partial(factory, with_blocks(start))
        return Blueprint(partial(factory, start), template, every)

    def grown(self, saved: Checkpoint) -> nn.Module:
        """A network of the checkpoint's shape, with the values of a new one."""
        with torch.random.fork_rng(devices=[]):
            model = self.blank()
            for edit in edits_of(saved):
                edit.apply(model, self.template)
        if self.every_head:
            train_every_head(model)
        return model


def _placed(model: nn.Module, device: str | torch.device, dtype: torch.dtype | None) -> nn.Module:
    if dtype is not None and dtype not in _DTYPES:
        allowed = ", ".join(str(each) for each in _DTYPES)
        raise ConfigError(f"dtype must be one of {allowed}, or None, got {dtype}.")
    return model.to(device, dtype)
