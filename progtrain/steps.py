"""One optimizer step, and one evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from progtrain.contracts import Strength
from progtrain.curriculum.seen import training_batch
from progtrain.data.sets import Split
from progtrain.growth.average import update
from progtrain.growth.controls import Controls
from progtrain.objective import correct, cross_entropy
from progtrain.run import Run
from progtrain.schedulers.shape import When
from progtrain.setup import Setup

_EVALUATION_BATCH = 1024  # samples, fewer of them where either is more:
_EVALUATION_INPUTS = 2**22  # numbers that a batch holds
_EVALUATION_LOGITS = 2**24


def learning_rate(run: Run, setup: Setup) -> float:
    """The multiplier of every group's base rate for the coming step."""
    clock = run.clock
    metric = tuple(
        (o.moment, o.metrics[run.metric]) for o in run.history if run.metric in o.metrics
    )
    when = When(
        clock,
        clock.now,
        after=clock.after_step(run.batch_size, run.step_flops),
        metrics=metric,
        growths=tuple(event.moment for event in run.events),
    )
    return setup.at_growth.multiplier(setup.scheduler, when) * run.view.rate


def train_step(
    run: Run, setup: Setup, controls: Controls, strengths: Mapping[int, Strength]
) -> Tensor:
    """One optimizer step over `accumulate` forward passes; the mean loss, left on the device."""
    engine, parts = setup.engine, setup.train.accumulate
    controls.set(strengths)
    run.optimizer.set_multiplier(learning_rate(run, setup))
    run.optimizer.zero_grad()
    losses: list[Tensor] = []
    with controls.still_buffers():
        for part in range(parts):
            x, y = training_batch(run, setup.batches, part, run.batch_size // parts)
            with engine.autocast():
                loss = cross_entropy(run.model(x), y)
            engine.backward(loss / parts if parts > 1 else loss)
            losses.append(loss.detach())
    with controls.limited(run.optimizer, strengths):
        if setup.train.clip > 0:
            engine.unscale(run.optimizer)
            nn.utils.clip_grad_norm_(run.model.parameters(), setup.train.clip)
        engine.step(run.optimizer)
    if run.average is not None:
        update(run.average, run.model, setup.train.ema, run.clock.step)
    return torch.stack(losses).mean() if parts > 1 else losses[0]


def evaluate(run: Run, setup: Setup, split: Split, prefix: str) -> dict[str, float]:
    """Loss and accuracy over a whole split, each target once, at the alphas training has now.

    Where an average of the weights is kept, its figures are beside them, as `<prefix>/ema/…`.
    """
    found = _evaluate(run.model, setup, split, prefix)
    if run.average is not None:
        controls = Controls(run.average, run.events, setup.warmup)
        found |= _evaluate(run.average, setup, split, f"{prefix}/ema")
        controls.lift()
        run.average.requires_grad_(False)
    return found


def _evaluate(model: nn.Module, setup: Setup, split: Split, prefix: str) -> dict[str, float]:
    model.eval()
    loss = torch.zeros((), device=setup.engine.device, dtype=torch.float64)
    right = torch.zeros((), device=setup.engine.device, dtype=torch.int64)
    with torch.no_grad(), setup.engine.autocast():
        for x, y in setup.batches.every(split, evaluation_batch(split, setup.num_classes)):
            logits = model(x).float()
            loss += cross_entropy(logits, y, "sum").double()
            right += correct(logits, y)
    model.train()
    return {
        f"{prefix}/loss": float(loss) / split.y.numel(),
        f"{prefix}/accuracy": float(right) / split.y.numel(),
    }


def evaluation_batch(split: Split, num_classes: int) -> int:
    """Samples of one batch, so that memory does not depend on how large a sample is."""
    inputs, targets = split.x[0].numel(), split.y[0].numel()
    fitting = (_EVALUATION_INPUTS // inputs, _EVALUATION_LOGITS // (targets * num_classes))
    return max(1, min(_EVALUATION_BATCH, *fitting))
