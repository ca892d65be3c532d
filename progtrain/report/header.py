"""What a run starts with, in a line each: the data found, the network, its optimizer, its time."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING

from progtrain.clock import Unit
from progtrain.hardware.shards import shape_of
from progtrain.report.units import flops

if TYPE_CHECKING:
    from progtrain.build import Parts
    from progtrain.data.sets import Sets
    from progtrain.optimizers.group import OptimizerSet
    from progtrain.run import Run

_NAMES = 3  # classes that are named
_HYPERPARAMETERS = ("weight_decay", "momentum", "betas")


def header(run: Run, sets: Sets, parts: Parts) -> list[str]:
    """`<label>: <what it is>` of data, model, optimizer and training."""
    return [
        f"data: {data(sets)}",
        f"model: {model(run)}",
        *(f"optimizer: {each}" for each in optimizers(run.optimizer)),
        f"training: {training(run, parts)}",
    ]


def data(sets: Sets) -> str:
    """`1,437 samples of 1×8×8 to train on, 360 to validate, none to test; 10 classes`."""
    shape = "×".join(map(str, sets.train.x.shape[1:])) or "one number"
    kind = f"{shape} tokens" if sets.codec is not None else shape
    tested = f"{len(sets.test):,}" if sets.test is not None else "none"
    told = (
        f"{len(sets.train):,} samples of {kind} to train on, {len(sets.validation):,} to"
        f" validate, {tested} to test"
    )
    if sets.codec is not None:
        return told
    count = len(sets.classes) or int(sets.train.y.max()) + 1
    names = ", ".join(sets.classes[:_NAMES]) + (", …" if count > _NAMES else "")
    return f"{told}; {count:,} classes" + (f" ({names})" if sets.classes else "")


def model(run: Run) -> str:
    """`2,410 parameters in 20 tensors, 1.2 MFLOP a sample; 9,002 at full size`."""
    count = sum(1 for _ in run.model.parameters())
    frozen = sum(shape_of(p).numel() for p in run.model.parameters() if not p.requires_grad)
    told = f"{run.params:,} parameters in {count:,} tensors, {flops(run.flops)} a sample"
    told += f", {frozen:,} of them frozen" if frozen else ""
    grows = run.full_params != run.params
    return told + (f"; {run.full_params:,} at full size" if grows else "")


def optimizers(optimizer: OptimizerSet) -> Iterator[str]:
    """`AdamW lr 0.003: 20 tensors weight_decay 0.05, 22 tensors weight_decay 0`, one a kind."""
    for each in optimizer.optimizers:
        groups: dict[str, int] = {}
        for group in each.param_groups:
            told = ", ".join(_setting(group, name) for name in _HYPERPARAMETERS if name in group)
            told = f"lr {group['base_lr']:g}" + (f", {told}" if told else "")
            groups[told] = groups.get(told, 0) + len(group["params"])
        parts = [f"{count:,} tensors with {told}" for told, count in groups.items()]
        yield f"{type(each).__name__}, {'; '.join(parts)}"


def _setting(group: dict[str, object], name: str) -> str:
    value = group[name]
    values = value if isinstance(value, tuple | list) else [value]
    return f"{name} " + " ".join(f"{v:g}" if isinstance(v, float | int) else str(v) for v in values)


def training(run: Run, parts: Parts) -> str:
    """`30epochs of 23 steps of 64 samples, 690 steps; evaluated every 1epoch …`."""
    clock, batch = run.clock, run.batch_size
    samples = clock.in_samples(clock.total, batch)
    counted = samples is not None and clock.total.unit is not Unit.STEP
    steps = f", {ceil(samples / batch - 1e-9):,} steps" if counted and samples else ""
    epoch = clock.epoch_samples / batch
    better = "more" if run.mode == "max" else "less"
    return (
        f"{parts.train.duration}{steps} of {batch:,} samples ({epoch:,.4g} steps an epoch);"
        f" evaluated every {parts.train.evaluate_every} by {run.metric} ({better} is better),"
        f" stored every {parts.checkpoint.every}; seed {run.seed}"
    )
