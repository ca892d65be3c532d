"""One optimizer step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from math import isfinite

import torch
from torch import Tensor, nn

from progtrain.contracts import Strength
from progtrain.curriculum.seen import training_batch
from progtrain.growth.average import update
from progtrain.growth.controls import Controls
from progtrain.growth.heads import mean_loss
from progtrain.hardware.replicas import leaves_out, own_numbers, unsynchronised
from progtrain.hardware.shards import local, stored, whole
from progtrain.run import Run
from progtrain.schedulers.shape import When
from progtrain.setup import Setup
from progtrain.transfer.teachers import answer
from progtrain.withheld import Statistics, Withheld, nonfinite, reading_is_free, undone_where


def learning_rate(run: Run, setup: Setup) -> float:
    """The multiplier of every group's base rate for the coming step."""
    clock = run.clock
    when = When(
        clock,
        clock.now,
        after=clock.after_step(run.batch_size, run.step_flops),
        metrics=run.seen,
        growths=tuple(event.moment for event in run.grown),
    )
    factors = [setup.settle.factor(event, clock) for event in run.grown]
    multiplier = setup.at_growth.multiplier(setup.scheduler, when) * run.view.rate
    return multiplier * min(factors, default=1.0)


def train_step(
    run: Run, setup: Setup, controls: Controls, strengths: Mapping[int, Strength]
) -> Tensor:
    """One optimizer step over `accumulate` forward passes; the mean loss on the labels, left on the
    device. What teachers add to it is in `Run.distilled`."""
    engine = setup.engine
    controls.set(strengths)
    rates = {index: each.newborn_rate for index, each in strengths.items()}
    run.optimizer.set_multiplier(learning_rate(run, setup), rates)
    run.optimizer.zero_grad()
    engine.begin_step()
    statistics = Statistics.of(run.model)
    with controls.still_buffers(), own_numbers(engine.group, run.seed, run.clock.now.samples):
        losses, distilled = _backward(run, setup)
    loss = engine.group.mean(torch.stack(losses).mean() if len(losses) > 1 else losses[0])
    run.withheld = _withheld(run, setup, loss)
    statistics.put_back(run.withheld)
    with controls.limited(run.optimizer, strengths):
        _measure_gradients(run, setup, loss)
        engine.step(run.optimizer, run.withheld)
    engine.stepped(run.model)
    if run.average is not None and run.withheld is not True:
        with undone_where(run.withheld, list(stored(run.average).values())):
            update(run.average, run.model, setup.train.ema, run.clock.step)
    run.distilled = engine.group.mean(torch.stack(distilled).mean()) if distilled else None
    return loss


def _backward(run: Run, setup: Setup) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of the coming step, over the samples of all processes; the loss on the labels of
    each forward pass, and what teachers add to it."""
    engine, parts = setup.engine, setup.train.accumulate
    group, size = engine.group, run.batch_size // parts
    called = engine.replicas.of(run.model, partial(_unused, run, setup))
    losses, distilled = list[Tensor](), list[Tensor]()
    for part in range(parts):
        x, y = training_batch(run, setup, part, size)
        weight = len(y) * group.world / size  # 1 where every process has as many samples
        with nullcontext() if part + 1 == parts else unsynchronised(called):
            with engine.autocast(), engine.replicas.over_all():
                loss, on_labels, taught = minimised(run, setup, x, y, called)
            loss = loss / parts if parts > 1 else loss
            engine.backward(loss if weight == 1 else loss * weight)
        losses.append(on_labels.detach() * weight if weight != 1 else on_labels.detach())
        distilled += taught
        if part + 1 < parts:
            engine.keep_gradients(run.optimizer)
    engine.reduced(run.model)
    return losses, distilled


def _unused(run: Run, setup: Setup) -> bool:
    """Whether there are parameters that would learn and have no part in the loss."""
    model, probe = run.model, run.probe
    if setup.engine.settings.compile:
        return True  # to look would compile it anew
    model.eval()
    loss, _ = mean_loss(model, probe.x[:1], probe.y[:1], setup.criterion)
    model.train()
    return leaves_out(loss, model)


def _withheld(run: Run, setup: Setup, loss: Tensor) -> Withheld:
    """Whether the step must change nothing: its loss or a gradient is not finite.

    What is not finite in the gradients of fp16 alone is the loss scaler's: it skips such steps.
    """
    engine = setup.engine
    if engine.scaler.is_enabled():
        return not isfinite(float(loss))
    gradients = [local(p.grad) for p in run.optimizer.parameters.values() if p.grad is not None]
    place = gradients[0].device if gradients else loss.device  # they may wait in the CPU's memory
    found = nonfinite([*gradients, loss.to(place)])
    if engine.shards is not None:  # each process has looked at its shards
        found = engine.group.reduced(found, "max")
    if reading_is_free(found):
        return bool(found)
    before, ends = run.withheld, setup.nonfinite.policy == "raise"  # then nothing comes after it
    return torch.maximum(found, before) if ends and isinstance(before, Tensor) else found


def _measure_gradients(run: Run, setup: Setup, loss: Tensor) -> None:
    """Clip where that is wanted, and note loss and norm where a monitor looks at them."""
    clip = setup.train.clip
    if clip == 0 and run.recent is None:
        return
    parameters = list(run.optimizer.parameters.values())
    setup.engine.unscale(run.optimizer)
    if clip > 0:
        norm = run.norm = whole(nn.utils.clip_grad_norm_(parameters, clip))
    else:
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if run.recent is not None:
        run.recent.note(run.clock.step + 1, loss, norm)


def minimised(
    run: Run, setup: Setup, x: Tensor, y: Tensor, called: nn.Module | None = None
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """The loss of a batch; the part of it on the labels; the distillation loss, where there is.

    `called` is what stands around the network (hardware/replicas.py).
    """
    on_labels, logits = mean_loss(run.model, x, y, setup.criterion, called)
    teaching = setup.transfer.teaching
    if teaching is None or not run.teachers:
        return on_labels, on_labels, ()
    loss, distilled = teaching.loss(on_labels, logits, [answer(t, x) for t in run.teachers])
    return loss, on_labels, (distilled,)
