"""Whether a grown network trains on, with everything that is there."""

from __future__ import annotations

from typing import Any

import torch
from coverage_report import Outcome
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.growth.grow import Grown, Host

_STEPS = 8  # ends in a row begin to learn one after another


def trains(grown: Grown) -> Outcome:
    """Steps of SGD: all that learned before learns, and all that is new moves."""
    learning = _learning(grown)
    model, x, y = _training(grown.model), grown.x, grown.host.probe.y
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    still: list[str] = []
    for _ in range(_STEPS):
        optimizer.zero_grad()
        F.cross_entropy(_logits(model(x)), y).backward()
        _normalise(model)
        optimizer.step()
        still = _still(grown, model, start, learning)
        if not still:
            return Outcome(True)
    dead = [n for n, p in model.named_parameters() if n in learning and p.grad is None]
    if dead:
        return Outcome(False, f"no gradient in {dead[0]}")
    return Outcome(False, f"{len(still)} do not move: {still[0]}")


def _still(
    grown: Grown, model: nn.Module, start: dict[str, Tensor], learning: set[str]
) -> list[str]:
    """Tensors that have not moved, as a whole or in what is new."""
    named = dict(model.named_parameters())
    still = [n for n, p in named.items() if n in learning and torch.equal(p, start[n])]
    for slab in grown.edit.slabs():
        if slab.tensor in learning:
            new = slab.read(named[slab.tensor].detach())
            if torch.equal(new, slab.read(start[slab.tensor])):
                still.append(slab.tensor)
    return still


def _learning(grown: Grown) -> set[str]:
    """What must learn: all that does in the host, and the same in each new block."""
    before = _gradients(grown.host)
    learning = {grown.edit.rename(name) for name in before}
    for block in grown.edit.blocks():
        stack = block.rpartition(".")[0]
        beside = f"{stack}." if stack else ""
        inside = {n.removeprefix(beside).partition(".")[2] for n in before if n.startswith(beside)}
        own = [name for name, _ in grown.model.get_submodule(block).named_parameters()]
        learning |= {f"{block}.{name}" for name in own if name in inside}
    return learning


def _training(model: nn.Module) -> nn.Module:
    """Training mode, but for what drops whole blocks, which would not learn in that step."""
    for module in model.train().modules():
        if "drop" in type(module).__name__.lower() or "Stochastic" in type(module).__name__:
            module.training = False  # not what is inside
    return model


def _normalise(model: nn.Module) -> None:
    """Gradients of a size at which every step shows."""
    for p in model.parameters():
        if p.grad is not None and float(p.grad.norm()) > 0:
            p.grad.mul_(p.detach().norm().clamp_min(1e-3) / p.grad.norm())


def _gradients(host: Host) -> set[str]:
    """Parameters of the host that a loss reaches."""
    model = _training(host.model)
    loss = F.cross_entropy(_logits(model(host.probe.x)), host.probe.y)
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    model.eval()
    return {n for n, g in zip(named, found, strict=True) if g is not None and g.abs().sum() > 0}


def _logits(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]
