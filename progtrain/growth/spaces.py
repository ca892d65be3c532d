"""What can grow in a network: its spaces (widths) and its stacks (depth), found by one forward.

A space is a set of tensor dimensions that must change size together: one hidden width, one channel
group, a residual stream. A stack is a run of equal blocks that keep their input's shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.edits import Part, Role
from progtrain.growth.rules import rule
from progtrain.growth.trace import Node, record


@dataclass(frozen=True)
class Space:
    """A width: `size` units, and every tensor dimension that has one entry a unit."""

    name: str  # of the first module that computes it
    size: int
    parts: tuple[Part, ...]
    layer_norms: tuple[str, ...]  # modules that normalise over it
    fixed: str  # why it cannot grow; empty if it can
    inexact: str  # why mean-padding (layer norm) cannot preserve the function; empty if it can

    def tensors(self, role: Role) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.role is role)


def spaces(model: nn.Module, x: Tensor) -> list[Space]:
    """Every space of `model`, in the order of the forward pass on `x` (batch, ...)."""
    graph = record(model, x, rule)
    roots = [node for i, node in enumerate(graph.nodes) if graph.root(i) == i]
    return [_space(node) for node in roots]


def _space(node: Node) -> Space:
    fixed = node.fixed
    if not fixed and not any(part.role is Role.CONSUMER for part in node.parts):
        fixed = "nothing reads it"
    curved = [name for name, linear in node.norms if not linear]
    inexact = f"layer norm {curved[0]} sees it behind a nonlinearity" if curved else ""
    norms = tuple(dict.fromkeys(name for name, _ in node.norms))
    return Space(node.name, node.size, tuple(node.parts), norms, fixed, inexact)


@dataclass(frozen=True)
class BlockStack:
    """A run of equal blocks inside a `Sequential` or `ModuleList`."""

    name: str  # of the container
    first: int  # index of the first block of the run
    length: int


def stacks(model: nn.Module, x: Tensor) -> list[BlockStack]:
    """Every stack of `model`; blocks are modules with parts of their own, not single layers."""
    kept = _shape_keeping(model, x)
    found: list[BlockStack] = []
    for name, container in model.named_modules():
        inside = any(name.startswith(_block_prefix(stack)) for stack in found)
        if inside or not isinstance(container, nn.Sequential | nn.ModuleList):
            continue
        run = _longest_run([_signature(child, kept) for child in container])
        if run[1]:
            found.append(BlockStack(name, *run))
    return found


def _block_prefix(stack: BlockStack) -> str:
    return f"{stack.name}." if stack.name else "."


def _shape_keeping(model: nn.Module, x: Tensor) -> set[nn.Module]:
    """Modules whose output has their input's shape."""
    kept: set[nn.Module] = set()

    def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        same = bool(args) and isinstance(args[0], Tensor) and isinstance(out, Tensor)
        if same and args[0].shape == out.shape:
            kept.add(module)

    training = {module: module.training for module in model.modules()}
    handles = [module.register_forward_hook(hook) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return kept


def _signature(block: nn.Module, kept: set[nn.Module]) -> tuple[Any, ...] | None:
    """What makes two blocks equal; None for a module that cannot be stacked."""
    tensors = tuple((name, tuple(t.shape)) for name, t in block.state_dict().items())
    composite = next(block.children(), None) is not None
    if block not in kept or not composite or not tensors:
        return None
    return type(block), tensors


def _longest_run(signatures: list[tuple[Any, ...] | None]) -> tuple[int, int]:
    best, start = (0, 0), 0
    for i, signature in enumerate(signatures):
        if i == 0 or signature is None or signature != signatures[i - 1]:
            start = i
        if signature is not None and i - start + 1 > best[1]:
            best = (start, i - start + 1)
    return best
