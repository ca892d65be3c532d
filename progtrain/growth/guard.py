"""A guard against parameters that silently do not train after a growth.

That each is in the optimizer once is checked where optimizers are built (optimizers/group.py). This
looks at what the third step does: zeroed layers pass gradients on after the first one, so by then
all that can learn has a gradient, and what has one must move.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from progtrain.errors import GrowthError
from progtrain.hardware.shards import whole
from progtrain.run import Run
from progtrain.setup import Setup

_LOOKS_AT = 2  # steps after the growth, or after the start
_SHARE = 1e-5  # of a weight: a smaller step may be lost to rounding
_NAMED = 5  # parameters


@contextmanager
def guarded(run: Run, setup: Setup) -> Generator[None]:
    """Around an optimizer step: raise `GrowthError` for what should have moved and did not, and
    note what no gradient reaches."""
    last = run.events[-1].moment.step if run.events else 0
    if run.clock.step != last + _LOOKS_AT:
        yield
        return
    before = {name: whole(p.detach()).clone() for name, p in _training(run).items()}
    yield
    if bool(run.withheld):
        return
    idle, stuck = still(run, before)
    if stuck and not setup.engine.scaler.is_enabled():  # fp16 may have skipped the step
        raise GrowthError(
            f"{_told(stuck)} a gradient and did not move in step {run.clock.step + 1}: the"
            " optimizer does not train what it should. Check the optimizer's class, or use"
            " optimizer=adamw."
        )
    if idle and len(idle) < len(before):
        text = f"{_told(idle)} no gradient {_LOOKS_AT + 1} steps after "
        setup.reporter.noted(run, text + ("the last growth" if run.events else "the start"))


def _training(run: Run) -> dict[str, Tensor]:
    """What the optimizer steps of the parameters that learn."""
    learning = [name for name, p in run.model.named_parameters() if p.requires_grad]
    return {name: run.optimizer.parameters[name] for name in learning}


def still(run: Run, before: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Parameters that no gradient reaches, and those that have one and did not move."""
    idle, stuck = list[str](), list[str]()
    rates = {id(p): g["lr"] for g in run.optimizer.groups() for p in g["params"]}
    for name, parameter in _training(run).items():
        gradient = None if parameter.grad is None else whole(parameter.grad)
        if gradient is None or not bool(gradient.any()):
            idle.append(name)
            continue
        now = whole(parameter)
        if torch.equal(now, before[name]) and _should(now, gradient, rates[id(parameter)]):
            stuck.append(name)
    return idle, stuck


def _should(parameter: Tensor, gradient: Tensor, rate: float) -> bool:
    """Whether a step along the gradient would be seen."""
    step = rate * float(gradient.abs().max())
    return step > _SHARE * float(parameter.detach().abs().max())


def _told(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" * (len(names) > _NAMED))
    return f"{shown} {'have' if len(names) > 1 else 'has'}"
