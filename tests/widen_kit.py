"""Decoders and rows of layers to widen, and what their new units are and learn."""

from __future__ import annotations

import torch
from growth_kit import a_probe, lively
from torch import Tensor, nn

from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import evaluate, widened
from progtrain.growth.operators.gradients import (
    batch_statistics,
    gradients,
    looking,
    of_model,
    rows,
    slabs_of,
)
from progtrain.growth.widen_space import Role
from progtrain.models.gpt import GPT
from progtrain.objective import cross_entropy
from progtrain.run import Probe


def a_gpt(**settings: object) -> Host:
    """A decoder with weights large enough to matter, and tokens for it."""
    torch.manual_seed(0)
    model = lively(GPT((6,), 7, **{"width": 16, "depth": 1, "heads": 2} | settings))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(value / parameter.shape[1] ** 0.5)
    tokens = torch.randint(7, (2, 4, 6), generator=generator)
    return Host(model, Probe(tokens[0], tokens[1]))


def vectors(*layers: nn.Module, features: int = 5, samples: int = 24) -> Host:
    """Layers in a row that read vectors."""
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return Host(nn.Sequential(*layers).double(), a_probe(samples, (features,)))


def loss(model: nn.Module, host: Host) -> float:
    return float(cross_entropy(evaluate(model, host.probe.x), host.probe.y))


def new_units(grown: Grown, role: Role, space: int = 0) -> Tensor:
    """(units, entries) of new units in the weights of that role."""
    change = widened(grown.edit)[space]
    return of_model(grown.model, slabs_of(grown.model, change, role))


def slope_of(grown: Grown, role: Role, space: int = 0) -> Tensor:
    """dL/dw of the same, and of biases, in the batch's statistics."""
    with looking(grown.model), batch_statistics(grown.model):
        found = gradients(grown.model, grown.host.probe)
    change = widened(grown.edit)[space]
    parts = [part for part in change.parts if part.role is role and part.tensor in found]
    return rows(found, [change.slab(part, change.old) for part in parts]).detach()
