"""The first tensor in which two runs differ, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from progtrain.hardware.shards import local, stored
from progtrain.machine import Machine

# What is compared, in the order in which a step makes it, and what a first difference there says.
_SAYS = {
    "loss": "The forward pass is not deterministic: look at the data, dropout, or an operation of"
    " yours that draws from a generator which no seed reaches.",
    "gradient": "The backward pass is not deterministic (or the forward, where a norm hides it"
    " from the loss): try hardware.deterministic=true.",
    "weight": "What changes weights is not deterministic: the optimizer, or the operator of a"
    " growth that draws from a generator which no seed reaches.",
    "buffer": "The forward pass changes a buffer in another way.",
    "optimizer state": "The optimizer's state is not deterministic.",
    "average": "The average of the weights is not deterministic.",
    "metric": "The evaluation is not deterministic.",
}


def difference(one: Machine, other: Machine, stepped: bool = True) -> str | None:
    """The first difference of two runs in words; None where every bit is equal. Gradients belong to
    a step: a run in shards that is stored after it has none."""
    mine, theirs = (
        {key: t for key, t in tensors(each) if stepped or key[0] != "gradient"}
        for each in (one, other)
    )
    for kind, name in [*mine, *(key for key in theirs if key not in mine)]:
        a, b = mine.get((kind, name)), theirs.get((kind, name))
        if a is None or b is None or a.shape != b.shape:
            return (
                f"{kind} {name} is {_shape(a)} in one and {_shape(b)} in the other. {_SAYS[kind]}"
            )
        if not same(a, b):
            more = sum(_differs(mine[key], theirs.get(key)) for key in mine) - 1
            others = f", and {more:,} more tensors differ" if more else ""
            return f"{kind} {name} by {_size(a, b)}{others}. {_SAYS[kind]}"
    return None


def tensors(machine: Machine) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Everything that two equal runs share, by kind and name; of shards those of this process."""
    for key, tensor in _tensors(machine):
        yield key, local(tensor)


def _tensors(machine: Machine) -> Iterator[tuple[tuple[str, str], Tensor]]:
    run, model = machine.run, machine.run.model
    yield ("loss", "of the step"), machine.stepper.loss
    parameters = run.optimizer.parameters
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            yield ("gradient", name), parameter.grad
    yield from ((("weight", name), each.detach()) for name, each in parameters.items())
    yield from ((("buffer", name), each) for name, each in model.named_buffers())
    for name in parameters:
        for key, value in run.optimizer.state_of(name).items():
            yield ("optimizer state", f"{name}/{key}"), value
    for name, each in stored(run.average).items() if run.average is not None else ():
        yield ("average", name), each
    last: Mapping[str, float] = run.history[-1].metrics if run.history else {}
    for name, value in last.items():
        yield ("metric", name), torch.tensor(value, dtype=torch.float64)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape hold equal numbers; what is no number equals itself."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _differs(a: Tensor, b: Tensor | None) -> bool:
    return b is None or a.shape != b.shape or not same(a, b)


def _size(a: Tensor, b: Tensor) -> str:
    gap = (a.double() - b.double()).abs()
    count = int((a != b).sum())
    of = "" if a.numel() == 1 else f" in {count:,} of {a.numel():,} entries"
    return f"{float(gap.max()):.3g} at most (of {float(a.double().abs().max()):.3g}){of}"


def _shape(tensor: Tensor | None) -> str:
    return "not there" if tensor is None else "×".join(map(str, tensor.shape)) or "one number"
