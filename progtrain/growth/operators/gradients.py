"""What operators share that look at the loss: its gradients on the probe batch, units as rows.

Everything runs in evaluation mode (dropout off, running statistics) and leaves no gradients behind.
Attention runs by its plain formula, as the fused kernels cannot be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from progtrain.flops import training_flops
from progtrain.growth.grow import Grown
from progtrain.growth.newborn import widened
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Role, Slab, WidenSpace
from progtrain.objective import cross_entropy
from progtrain.run import Probe

Tensors = Mapping[str, Tensor]
Slabs = Sequence[Slab]


@contextmanager
def looking(model: nn.Module) -> Generator[None]:
    """Evaluation mode, with gradients; the modes are as before afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def batch_statistics(model: nn.Module) -> Generator[None]:
    """Batch norms use the statistics of the batch, as in training; running ones stay as they are.

    Those of new channels, which change from pass to pass, are not known.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    norms = [norm for norm in norms if norm.track_running_stats]
    kept = [{key: tensor.clone() for key, tensor in norm.named_buffers()} for norm in norms]
    for norm in norms:
        norm.training = True
    try:
        yield
    finally:
        for norm, before in zip(norms, kept, strict=True):
            norm.training = False
            for key, tensor in before.items():
                norm.get_buffer(key).copy_(tensor)


def gradients(model: nn.Module, probe: Probe) -> dict[str, Tensor]:
    """dL/dw of every parameter on the probe batch, as functions that can be differentiated."""
    return derivatives(model, cross_entropy(model(probe.x), probe.y), create_graph=True)


def derivatives(model: nn.Module, value: Tensor, create_graph: bool = False) -> dict[str, Tensor]:
    """dvalue/dw of every parameter that trains."""
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in wanted.items()}
    found = torch.autograd.grad(
        value, list(wanted.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(wanted, found, strict=True))


def rows(tensors: Tensors, slabs: Slabs) -> Tensor:
    """(units, entries): all that a unit has in the slabs, one behind another."""
    return torch.cat([_units_first(slab, tensors[slab.tensor]).flatten(1) for slab in slabs], 1)


def write_rows(model: nn.Module, slabs: Slabs, value_UE: Tensor) -> None:
    """The way back from `rows`."""
    start = 0
    for slab in slabs:
        tensor = tensor_of(model, slab.tensor)
        shape = _units_first(slab, tensor).shape
        stop = start + shape[1:].numel()
        slab.write(tensor, value_UE[:, start:stop].reshape(shape).movedim(0, slab.dim))
        start = stop


def _units_first(slab: Slab, tensor: Tensor) -> Tensor:
    return slab.read(tensor).movedim(slab.dim, 0)


def of_model(model: nn.Module, slabs: Slabs) -> Tensor:
    """`rows` of the network's own tensors."""
    return rows({slab.tensor: tensor_of(model, slab.tensor) for slab in slabs}, slabs)


def slabs_of(model: nn.Module, change: WidenSpace, role: Role, old: bool = False) -> list[Slab]:
    """The change's new (or old) units in every weight of that role that trains.

    Biases are none: they start at zero or as they are.
    """
    start, stop = (0, change.old) if old else (change.old, change.new)
    trained = {name for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1}
    return [
        change.slab(part, start, stop)
        for part in change.parts
        if part.role is role and part.tensor in trained
    ]


def typical_norm(grown: Grown, change: WidenSpace, role: Role) -> float:
    """Mean norm of what an old unit has in the weights of that role."""
    slabs = slabs_of(grown.model, change, role, old=True)
    return float(of_model(grown.model, slabs).norm(dim=1).mean())


def free(model: nn.Module, change: WidenSpace) -> bool:
    """Whether new units may compute and be read as anything: no norm pads them, none mixes them."""
    sides = [slabs_of(model, change, role) for role in (Role.PRODUCER, Role.CONSUMER)]
    return all(sides) and change.norm is None and not change.inexact


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The same numbers on every device and in every precision."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def passes(grown: Grown, count: float) -> float:
    """FLOPs of `count` forward and backward passes of the probe batch by the grown network."""
    return count * len(grown.x) * training_flops(grown.model, grown.x)


def passes_if_free(grown: Grown, count: float) -> float:
    """The same, and nothing where no new unit may be chosen."""
    chosen = any(free(grown.model, change) for change in widened(grown.edit))
    return passes(grown, count) if chosen else 0.0
