"""`task=test`: every metric of a stored network, as its run would report them at that step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from progtrain.build import Parts, build
from progtrain.checkpoint.format import Checkpoint
from progtrain.clock import Clock, Duration
from progtrain.data.sets import Batches, Split
from progtrain.errors import ConfigError
from progtrain.evaluation import evaluate
from progtrain.growth.average import begin
from progtrain.growth.controls import Controls
from progtrain.growth.freezing import frozen_now
from progtrain.hardware.engine import Engine
from progtrain.inputs import Inputs, Unknown
from progtrain.loading import network
from progtrain.optimizers.group import OptimizerSet
from progtrain.record import events_of, history_of, moment_of
from progtrain.report.files import strict
from progtrain.report.units import written
from progtrain.run import Json, Probe, Run
from progtrain.setup import Setup
from progtrain.start import batches_of, new_setup

if TYPE_CHECKING:
    from progtrain.command_line.from_checkpoint import Request

RESULT = "test.json"


@dataclass(frozen=True)
class Figures:
    """What a test has found."""

    split: str  # test, or validation where the data have no test split
    samples: int
    metrics: Mapping[str, float]  # by full name
    reported: Mapping[str, float]  # what the run said of the same split at the same step


def run(request: Request) -> int:
    """Print a table, write `test.json`; 0."""
    found = figures(build(request.config), request.saved, request.plugins)
    directory = request.claim()
    saved = request.saved
    document: dict[str, Json] = {
        "checkpoint": str(saved.path),
        "step": saved.step,
        "split": found.split,
        "samples": found.samples,
        "metrics": dict(found.metrics),
        "reported": dict(found.reported) or None,
        "changed": list(request.changes),
    }
    (directory / RESULT).write_text(strict(document, indent=2) + "\n", encoding="utf-8")
    _print(found, saved, request.changes)
    print("", *written([directory / RESULT]), sep="\n")
    return 0


def figures(parts: Parts, saved: Checkpoint, plugins: tuple[str, ...] = ()) -> Figures:
    """Evaluate a checkpoint on the data of `parts`: its test split, or else its validation split.

    On the same device, in the same precision and with as many threads it gives the same bits as
    the run did. Inputs are normalised as in training, whatever data are given.
    """
    engine = parts.hardware.open()
    batches = _batches(parts, saved, engine)
    setup = new_setup(parts, engine, batches)
    run = stored_run(parts, saved, setup, plugins)
    sets = batches.sets
    split, prefix = (sets.validation, "val") if sets.test is None else (sets.test, "test")
    controls = Controls(run.model, run.events, setup.warmup, frozen_now(run, parts.train))
    try:
        _try(run.model, setup, split)
        metrics = evaluate(run, setup, split, prefix)
    finally:
        controls.lift()
    last = run.history[-1] if run.history else None
    same = last is not None and last.moment.step == saved.step
    told = last.metrics if last is not None and same else {}
    reported = {name: told[name] for name in metrics if name in told}
    name = "validation" if sets.test is None else "test"
    return Figures(name, len(split), metrics, reported)


def stored_run(parts: Parts, saved: Checkpoint, setup: Setup, plugins: tuple[str, ...]) -> Run:
    """As much of a run as its evaluation needs: no optimizer, no teachers, no way back."""
    batches, engine, train = setup.batches, setup.engine, parts.train
    model = engine.place(network(saved, plugins))
    average = None
    if train.ema and "average" in saved.tensors:
        average = begin(network(saved, plugins, average=True).to(engine.device))
    total = Duration.parse(train.duration, "train.duration")
    return Run(
        parts.seed,
        Clock(total, len(batches.sets.train), moment_of(saved)),
        model,
        OptimizerSet((), {}),
        Probe(*batches.at(0, 1)),
        train.metric,
        train.mode,
        average=average,
        events=events_of(saved),
        history=history_of(saved),
    )


def _batches(parts: Parts, saved: Checkpoint, engine: Engine) -> Batches:
    """The data, normalised as the network was trained on; any size of them will do."""
    one = replace(parts.train, batch_size=1, accumulate=1)
    batches = batches_of(replace(parts, train=one), engine)
    if "inputs" not in saved.documents:
        return batches
    inputs = Inputs.from_json(saved.documents["inputs"])
    _check_same(inputs, parts, batches)
    if isinstance(inputs.normalise, Unknown):
        return batches
    return replace(batches, sets=replace(batches.sets, normalise=inputs.normalise))


def _check_same(inputs: Inputs, parts: Parts, batches: Batches) -> None:
    """Refuse data that the network cannot read, or would read as something else."""
    shape = tuple(parts.data.shape)
    channels = (len(shape), shape[0] if len(shape) > 1 else 0)
    if channels != (len(inputs.shape), inputs.shape[0] if len(inputs.shape) > 1 else 0):
        raise ConfigError(
            f"Samples are {_sized(shape)}, the network was trained on {_sized(inputs.shape)}."
            " Choose data of that kind."
        )
    codec = batches.sets.codec
    told = codec.to_json() if codec is not None else None
    if inputs.codec is not None and told != inputs.codec.to_json():
        raise ConfigError(
            "These data have other tokens than the network was trained on, so its figures would"
            " mean nothing. Choose the same data.tokens and vocabulary."
        )


@torch.no_grad()
def _try(model: nn.Module, setup: Setup, split: Split) -> None:
    """Refuse samples that the network does not run on, and labels that it does not know."""
    x, _ = next(iter(setup.batches.every(split, 1)))
    try:
        with setup.engine.autocast():
            classes = model(x).shape[-1]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ConfigError(
            f"The network does not run on samples of {_sized(tuple(x.shape[1:]))}:"
            f" {str(error).splitlines()[0]}. Choose data like those it was trained on."
        ) from error
    top = int(split.y.max())
    if top >= classes:
        raise ConfigError(
            f"Label {top} is in the data; the network knows {classes} classes, 0 to {classes - 1}."
            " Choose data with the labels that it was trained on."
        )


def _sized(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _print(found: Figures, saved: Checkpoint, changes: tuple[str, ...]) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{saved.path}, step {saved.step:,}: {found.samples:,} samples of {found.split}")
    if changes:
        console.print(f"other than in the run: {', '.join(changes)}")
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("value", justify="right")
    if found.reported:
        table.add_column("in the run", justify="right")
    for name, value in found.metrics.items():
        table.add_row(
            name, f"{value:.6g}", *([_shown(found.reported, name)] if found.reported else [])
        )
    console.print(table)


def _shown(reported: Mapping[str, float], name: str) -> str:
    return f"{reported[name]:.6g}" if name in reported else ""
