"""What happens at a boundary: a look at the network, a checkpoint, the end of a run."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from torch import Tensor

from progtrain.errors import DivergedError
from progtrain.run import Observation, Run, StopReason
from progtrain.setup import Setup
from progtrain.steps import evaluate

_LOSS = "boundary/loss"  # in `Run.memory`


def last_loss(run: Run) -> float:
    """The loss of the last step as a checkpoint has kept it; 0 before the first."""
    loss = run.memory.get(_LOSS)
    return loss if isinstance(loss, float) else 0.0


def look(run: Run, setup: Setup, loss: Tensor) -> None:
    """Evaluate, remember, report; raises `DivergedError`."""
    metrics = evaluate(run, setup, setup.batches.sets.validation, "val")
    metrics["train/loss"] = float(loss)
    observation = Observation(run.clock.now, run.clock.epoch, metrics)
    run.history.append(observation)
    setup.reporter.observed(run, observation)
    _refuse_divergence(run, metrics.values())


def save(run: Run, setup: Setup, loss: Tensor) -> None:
    """Store the run, and the loss that a resumed run may have to report; nothing diverged."""
    value = float(loss)
    _refuse_divergence(run, [value, *(float(p.detach().sum()) for p in run.model.parameters())])
    run.memory[_LOSS] = value
    setup.save(run)


def close(run: Run, setup: Setup, loss: Tensor) -> None:
    """Evaluate where the last step has not been, and the test split; store, report."""
    seen = run.history[-1].moment.step if run.history else -1
    if run.stopped is not StopReason.INTERRUPTED:
        if seen < run.clock.step:
            look(run, setup, loss)
        test = setup.batches.sets.test
        run.test = evaluate(run, setup, test, "test") if test is not None else None
    save(run, setup, loss)
    setup.reporter.stopped(run)


def _refuse_divergence(run: Run, values: Iterable[float]) -> None:
    if not all(map(isfinite, values)):
        raise DivergedError(
            f"Loss or weights are not finite at step {run.clock.step}. The last checkpoint is older"
            " and whole. Try a smaller optimizer.lr or train.clip=1."
        )
