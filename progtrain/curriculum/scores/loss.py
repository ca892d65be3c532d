"""What a network learns first is easy: the loss of each sample after a short reference pass."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from progtrain.account import SCORES
from progtrain.curriculum.view import View
from progtrain.data.sets import mixed
from progtrain.errors import require
from progtrain.evaluation import evaluation_batch
from progtrain.flops import forward_flops
from progtrain.growth.controls import Controls
from progtrain.objective import sample_losses
from progtrain.run import Run
from progtrain.setup import Setup
from progtrain.steps import train_step

_REFERENCE = 2  # mixed with the run's seed


@dataclass(frozen=True)
class Loss:
    """Losses of the run's own start network after `steps` steps of training on all samples.

    The steps are those that the run would begin with, had it no curriculum: same batches, optimizer
    and learning rate. They happen on a copy before the run's first step, and the run is charged
    with their FLOPs and seconds. Random numbers of the run stay as they were.

    Reference: transfer teachers of Hacohen & Weinshall 2019 (arXiv 1904.03626), section 2.
    """

    steps: int = 200  # of training before samples are scored

    def __post_init__(self) -> None:
        require(self.steps >= 0, "steps", self.steps, "a whole number >= 0 (0: untrained)")

    def scores(self, run: Run, setup: Setup) -> Tensor:
        begun, engine = time.perf_counter(), setup.engine
        scaler = copy.deepcopy(engine.scaler.state_dict())
        with torch.random.fork_rng([engine.device] if engine.device.type == "cuda" else []):
            torch.manual_seed(mixed(run.seed, _REFERENCE))
            reference = self._trained(run, setup)
            losses_N = _losses(reference.model, setup)
        if scaler:
            engine.scaler.load_state_dict(scaler)
        flops = reference.clock.now.flops - run.clock.now.flops
        flops += len(losses_N) * forward_flops(reference.model, run.probe.x)
        run.clock.charge(SCORES, flops, engine.seconds_since(begun))
        return losses_N

    def _trained(self, run: Run, setup: Setup) -> Run:
        """A copy of the run, `steps` steps on; its clock is its own."""
        model = copy.deepcopy(run.model).to(setup.engine.device)
        reference = replace(
            run,
            model=model,
            optimizer=setup.optimizer.build(dict(model.named_parameters()), frozenset()),
            clock=replace(run.clock),
            batch_size=setup.train.batch_size * setup.train.accumulate,
            view=View(),
            view_flops=None,
            average=None,
        )
        model.train()
        controls = Controls(model, [], setup.warmup)
        for _ in range(self.steps):
            train_step(reference, setup, controls, {})
            reference.clock.tick(reference.batch_size, reference.step_flops, 0.0)
        return reference


def _losses(model: nn.Module, setup: Setup) -> Tensor:
    """The loss of every training sample (N,), in order."""
    model.eval()
    train, losses = setup.batches.sets.train, list[Tensor]()
    with torch.no_grad(), setup.engine.autocast():
        for x, y in setup.batches.every(train, evaluation_batch(train, setup.num_classes)):
            losses.append(sample_losses(model(x).float(), y, setup.criterion).cpu())
    return torch.cat(losses)
