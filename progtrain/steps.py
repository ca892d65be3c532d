"""One optimizer step, and one evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor, nn

from progtrain.contracts import Strength
from progtrain.curriculum.seen import training_batch
from progtrain.data.sets import Split
from progtrain.growth.average import update
from progtrain.growth.controls import Controls
from progtrain.growth.heads import answering, mean_loss, outputs_by_head
from progtrain.metrics.tally import Answers, Tally
from progtrain.objective import cross_entropy
from progtrain.run import Run
from progtrain.schedulers.shape import When
from progtrain.setup import Setup
from progtrain.transfer.teachers import answer
from progtrain.withheld import Statistics, Withheld, nonfinite, undone_where

_EVALUATION_BATCH = 1024  # samples, fewer of them where either is more:
_EVALUATION_INPUTS = 2**22  # numbers that a batch holds
_EVALUATION_LOGITS = 2**24


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
    engine, parts = setup.engine, setup.train.accumulate
    controls.set(strengths)
    rates = {index: each.newborn_rate for index, each in strengths.items()}
    run.optimizer.set_multiplier(learning_rate(run, setup), rates)
    run.optimizer.zero_grad()
    engine.begin_step()
    statistics = Statistics.of(run.model)
    losses, distilled = list[Tensor](), list[Tensor]()
    with controls.still_buffers():
        for part in range(parts):
            x, y = training_batch(run, setup, part, run.batch_size // parts)
            with engine.autocast():
                loss, on_labels, taught = minimised(run, setup, x, y)
            engine.backward(loss / parts if parts > 1 else loss)
            losses.append(on_labels.detach())
            distilled += taught
            if part < parts - 1:
                engine.keep_gradients(run.optimizer)
    loss = torch.stack(losses).mean() if parts > 1 else losses[0]
    run.withheld = _withheld(run, setup, loss)
    statistics.put_back(run.withheld)
    with controls.limited(run.optimizer, strengths):
        _measure_gradients(run, setup, loss)
        engine.step(run.optimizer, run.withheld)
    if run.average is not None and run.withheld is not True:
        with undone_where(run.withheld, list(run.average.state_dict().values())):
            update(run.average, run.model, setup.train.ema, run.clock.step)
    run.distilled = torch.stack(distilled).mean() if distilled else None
    return loss


def _withheld(run: Run, setup: Setup, loss: Tensor) -> Withheld:
    """Whether the step must change nothing: its loss or a gradient is not finite.

    What is not finite in the gradients of fp16 alone is the loss scaler's: it skips such steps.
    """
    engine = setup.engine
    if engine.scaler.is_enabled():
        return not isfinite(float(loss))
    gradients = [p.grad for p in run.optimizer.parameters.values() if p.grad is not None]
    found = nonfinite([*gradients, loss])
    if engine.device.type == "cpu":
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
        norm = run.norm = nn.utils.clip_grad_norm_(parameters, clip)
    else:
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if run.recent is not None:
        run.recent.note(run.clock.step + 1, loss, norm)


def minimised(
    run: Run, setup: Setup, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
    """The loss of a batch; the part of it on the labels; the distillation loss, where there is."""
    on_labels, logits = mean_loss(run.model, x, y, setup.criterion)
    teaching = setup.transfer.teaching
    if teaching is None or not run.teachers:
        return on_labels, on_labels, ()
    loss, distilled = teaching.loss(on_labels, logits, [answer(t, x) for t in run.teachers])
    return loss, on_labels, (distilled,)


def evaluate(run: Run, setup: Setup, split: Split, prefix: str) -> dict[str, float]:
    """The loss and every metric over a whole split, each target once, at the alphas of now.

    Where an average of the weights is kept, its figures are beside them, as `<prefix>/ema/…`.
    """
    found = evaluate_network(run.model, setup, split, prefix)
    if run.average is not None:
        controls = Controls(run.average, run.events, setup.warmup)
        found |= evaluate_network(run.average, setup, split, f"{prefix}/ema")
        controls.lift()
        run.average.requires_grad_(False)
    return found


def evaluate_network(model: nn.Module, setup: Setup, split: Split, prefix: str) -> dict[str, float]:
    """Figures of the head that answers, and as `<prefix>/<head>/…` of each where there are several;
    the backbone is run once."""
    tallies: dict[str, Tally] = {}
    model.eval()
    with (
        torch.no_grad(),
        setup.engine.autocast(),
        answering(model, setup.train.answers),
        outputs_by_head(model) as by_head,
    ):
        for x, y in setup.batches.every(split, evaluation_batch(split, setup.num_classes)):
            out = model(x)
            heads = {f"{prefix}/{name}": each for name, each in by_head(out).items()}
            classes = max(out.shape[-1], setup.num_classes)
            for name, each in {prefix: out, **heads}.items():
                logits = each if each.dtype is torch.float64 else each.float()
                knows = logits.shape[-1] == out.shape[-1]  # else it may not know a target
                summed = cross_entropy(logits, y, "sum") if knows else None
                tally = tallies.setdefault(name, Tally(setup.metrics, setup.bytes_per_target))
                tally.add(Answers.of(logits, y, classes), summed)
    model.train()
    return {
        f"{name}/{figure}": value
        for name, tally in tallies.items()
        for figure, value in tally.figures().items()
    }


def evaluation_batch(split: Split, num_classes: int) -> int:
    """Samples of one batch, so that memory does not depend on how large a sample is."""
    inputs, targets = split.x[0].numel(), split.y[0].numel()
    fitting = (_EVALUATION_INPUTS // inputs, _EVALUATION_LOGITS // (targets * num_classes))
    return max(1, min(_EVALUATION_BATCH, *fitting))
