"""A run and what it works with, from their parts: at the start, or where a checkpoint has it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from progtrain.build import Parts
from progtrain.checkpoint.format import Checkpoint
from progtrain.clock import Clock, Duration
from progtrain.data.sets import Batches, Sets, Split, mixed
from progtrain.errors import CheckpointError, EnvironmentProblem
from progtrain.flops import num_params, training_flops
from progtrain.growth.average import begin
from progtrain.growth.first_block import with_blocks
from progtrain.growth.heads import train_every_head
from progtrain.hardware.engine import Engine
from progtrain.hardware.replicas import equalise
from progtrain.record import edits_of
from progtrain.report.many import Many
from progtrain.report.reporter import Reporter
from progtrain.run import Json, Probe, Run
from progtrain.settings import Training
from progtrain.setup import SaveBest, Setup, no_best
from progtrain.state import data_fingerprint, unpack
from progtrain.transfer.teachers import blend

PROBE_SAMPLES, PROBE_TOKENS = 64, 8192  # at most, of the batch that growths are checked with


def new_run(parts: Parts, engine: Engine, batches: Batches, saved: Checkpoint | None = None) -> Run:
    """A run at its start, or where a checkpoint has it."""
    if saved:
        _check_same_data(saved, parts, batches.sets)
    _seed(parts.seed)
    start = parts.growth.start
    blank = partial(parts.model_factory, start)
    model = blank()
    template = partial(parts.model_factory, with_blocks(start))
    for edit in edits_of(saved) if saved else []:
        edit.apply(model, template)
    engine.place(model)
    train = parts.train
    if train.heads == "all":
        train_every_head(model)
    x, y = batches.at(0, _probe_samples(batches.sets.train))
    clock = Clock(Duration.parse(train.duration, "train.duration"), len(batches.sets.train))
    run = Run(
        parts.seed,
        clock,
        model,
        parts.optimizer.build(dict(model.named_parameters()), frozenset()),
        Probe(x, y).at(engine.home),
        train.metric,
        train.mode,
        params=num_params(model),
        flops=training_flops(model, x),
        full_params=_full_params(parts),
        batch_size=train.batch_size * train.accumulate,
        accumulate=train.accumulate,
        curriculum=parts.curriculum,
        recurring=getattr(parts.growth, "recurring", False),
        evaluated=len(batches.sets.validation),
        average=begin(model) if train.ema else None,
        template=template,
        blank=blank,
    )
    _seed(mixed(parts.seed, 1))
    if saved:
        _check_same_optimizer(saved, parts)
        unpack(run, saved, engine, parts.optimizer)
        _go_on(run, parts)
        if _told(saved, "growth") != parts.config.get("growth"):
            run.grown_out = None  # what is allowed now may be more
    networks = [run.model, *([run.average] if run.average is not None else [])]
    equalise(engine.group, networks, run.optimizer)
    return run


def _probe_samples(train: Split) -> int:
    """Enough to check a growth by; of long sequences fewer."""
    most = min(PROBE_SAMPLES, len(train))
    return most if train.y.ndim < 2 else max(1, min(most, PROBE_TOKENS // train.y[0].numel()))


def _go_on(run: Run, parts: Parts) -> None:
    """What a checkpoint's networks need of the settings."""
    run.teachers = run.teachers if parts.transfer.teaching else []
    for teacher in run.teachers:
        blend(teacher, parts.warmup)
    for before in run.ways_back.values() if parts.train.heads == "all" else ():
        train_every_head(before.model)


def _seed(seed: int) -> None:
    """Seed every source of random numbers that a checkpoint holds."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _full_params(parts: Parts) -> int:
    """Parameters of the model at its full size, counted without memory."""
    try:
        with torch.device("meta"):
            return num_params(parts.model_factory({}))
    except (NotImplementedError, RuntimeError):  # some networks look at values as they are built
        return num_params(parts.model_factory({}))


def batches_of(parts: Parts, engine: Engine) -> Batches:
    """The data of a run, checked against its settings, where its engine wants them."""
    sets = parts.data.load()
    train: Training = parts.train
    sets.check(tuple(parts.data.shape), num_classes(parts), train.batch_size * train.accumulate)
    for part in (*parts.augments.values(), parts.mix):
        part.check(sets)
    if engine.settings.data_on_device:
        sets = _on_device(sets, engine.device)
    return Batches(sets, parts.seed, engine.device)


def _on_device(sets: Sets, device: torch.device) -> Sets:
    try:
        return replace(
            sets,
            train=sets.train.to(device),
            validation=sets.validation.to(device),
            test=sets.test.to(device) if sets.test else None,
        )
    except torch.OutOfMemoryError:
        raise EnvironmentProblem(
            f"The data set does not fit into the memory of {device}. Use"
            " hardware.data_on_device=false, which moves it batch by batch."
        ) from None


def num_classes(parts: Parts) -> int:
    """Classes of the data; `build` has counted them where the settings leave them open."""
    assert parts.data.num_classes is not None
    return parts.data.num_classes


def new_setup(
    parts: Parts,
    engine: Engine,
    batches: Batches,
    reports: Reporter | None = None,
    save: Callable[[Run], None] = lambda run: None,
    interrupted: Callable[[], bool] = lambda: False,
    save_best: SaveBest = no_best,
) -> Setup:
    """What a run of `parts` works with; by itself nothing is shown or stored."""
    return Setup(
        model_factory=parts.model_factory,
        growth=parts.growth,
        warmup=parts.warmup,
        settle=parts.settle,
        scheduler=parts.scheduler,
        at_growth=parts.at_growth,
        optimizer=parts.optimizer,
        optimizer_state=parts.optimizer_state,
        batches=batches,
        engine=engine,
        train=parts.train,
        stop=parts.stop,
        checkpoint=parts.checkpoint,
        reporter=reports or Many([]),
        save=save,
        interrupted=interrupted,
        num_classes=num_classes(parts),
        proof=parts.proof,
        monitors=parts.monitors,
        transfer=parts.transfer,
        augments=parts.augments,
        mix=parts.mix,
        criterion=parts.loss.criterion(batches.sets, num_classes(parts), engine.device),
        metrics=parts.metrics,
        nonfinite=parts.nonfinite,
        save_best=save_best,
    )


def fingerprint(sets: Sets) -> str:
    """SHA-256 of the training samples and targets; data that differ in one bit differ here."""
    return sets.fingerprint or _digest(sets.train)


def _digest(split: Split) -> str:
    digest = hashlib.sha256()
    for tensor in (split.x, split.y):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_same_data(saved: Checkpoint, parts: Parts, sets: Sets) -> None:
    """Refuse other training data, before a network is built for them."""
    if data_fingerprint(saved) == fingerprint(sets):
        return
    was, now = _told(saved, "data"), parts.config.get("data")
    if not (isinstance(was, dict) and isinstance(now, dict)):
        was, now = {}, {}
    changed = [
        f"data.{name} was {was.get(name)!r} and is {now.get(name)!r}"
        for name in {**was, **now}
        if was.get(name) != now.get(name)
    ]
    cause = "; ".join(changed) or "no setting of data has changed, so what they are read from has"
    raise CheckpointError(
        f"The training data differ from those of the checkpoint: {cause}. Resume with the same"
        " data settings and files, or start a new run."
    )


def _check_same_optimizer(saved: Checkpoint, parts: Parts) -> None:
    was, now = _told(saved, "optimizer"), parts.config.get("optimizer")
    kinds = [node["_target_"] for node in (was, now) if isinstance(node, dict)]
    if len(set(kinds)) > 1:
        raise CheckpointError(
            f"The checkpoint holds the state of {kinds[0]}, of which {kinds[1]} can make nothing."
            " Resume with the optimizer it was made with, or start a new run."
        )


def _told(saved: Checkpoint, group: str) -> Json:
    """What a group was set to when the checkpoint was made."""
    config = saved.documents.get("config")
    return config.get(group) if isinstance(config, dict) else None
