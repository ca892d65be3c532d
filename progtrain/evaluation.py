"""One evaluation: every sample of a split once, counted by all processes together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from progtrain.data.sets import Split
from progtrain.growth.controls import Controls
from progtrain.growth.heads import answering, outputs_by_head
from progtrain.hardware.group import Group
from progtrain.metrics.tally import Answers, Tally
from progtrain.objective import cross_entropy
from progtrain.run import Run
from progtrain.setup import Setup

_EVALUATION_BATCH = 1024  # samples, fewer of them where either is more:
_EVALUATION_INPUTS = 2**22  # numbers that a batch holds
_EVALUATION_LOGITS = 2**24


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
    the backbone is run once. Of several processes each sees its share of every batch, and all get
    the same figures."""
    group, size = setup.engine.group, evaluation_batch(split, setup.num_classes)
    tallies: dict[str, Tally] = {}
    model.eval()
    with (
        torch.no_grad(),
        setup.engine.autocast(),
        answering(model, setup.train.answers),
        outputs_by_head(model) as by_head,
    ):
        batches = setup.batches.every(split, size, group.some)
        for (x, y), mine in zip(batches, _mine(group, len(split), size), strict=True):
            out = model(x)
            heads = {f"{prefix}/{name}": each for name, each in by_head(out).items()}
            classes = max(out.shape[-1], setup.num_classes)
            for name, each in {prefix: out, **heads}.items():
                logits = each if each.dtype is torch.float64 else each.float()
                knows = logits.shape[-1] == out.shape[-1]  # else it may not know a target
                logits, targets = logits[:mine], y[:mine]
                summed = cross_entropy(logits, targets, "sum") if knows else None
                tally = tallies.setdefault(name, Tally(setup.metrics, setup.bytes_per_target))
                tally.add(Answers.of(logits, targets, classes), summed)
    model.train()
    if group.world > 1:
        tallies = {name: tally.reduced(group.reduced) for name, tally in tallies.items()}
    return {
        f"{name}/{figure}": value
        for name, tally in tallies.items()
        for figure, value in tally.figures().items()
    }


def _mine(group: Group, samples: int, size: int) -> Iterator[int]:
    """How many samples of each batch are this process's to count; it may be none of the last."""
    for start in range(0, samples, size):
        share = group.share(min(size, samples - start))
        yield share.stop - share.start


def evaluation_batch(split: Split, num_classes: int) -> int:
    """Samples of one batch, so that memory does not depend on how large a sample is."""
    inputs, targets = split.x[0].numel(), split.y[0].numel()
    fitting = (_EVALUATION_INPUTS // inputs, _EVALUATION_LOGITS // (targets * num_classes))
    return max(1, min(_EVALUATION_BATCH, *fitting))
