"""Stacks that are empty now and could hold blocks: found by the template, fitted to the network.

The template is the start network with a block where it has none (growth/first_block.py). Widths
that its blocks share with the rest of the network get the sizes they have there, found by the
names of tensors; widths inside a block keep their ratio to these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from progtrain.errors import ConfigError, GrowthError
from progtrain.growth.first_block import FirstBlock, build
from progtrain.growth.follow import DemandError, Sizes
from progtrain.growth.grow import Host
from progtrain.growth.layout import UNIT
from progtrain.growth.spaces import Space, Spaces
from progtrain.growth.stacks import stacks
from progtrain.growth.widen_space import WidenSpace


def first_blocks(host: Host) -> list[FirstBlock]:
    """The first block of every stack that is empty in the host."""
    if not any(_is_empty(module) for module in host.model.modules()):
        return []
    try:
        template = build(host.template, host.model)
    except ConfigError:
        return []  # the model has no setting for a number of blocks
    modules = dict(host.model.named_modules())
    found = [
        FirstBlock(stack.name)
        for stack in stacks(template, host.probe.x)
        if _is_empty(modules.get(stack.name)) and not stack.first
    ]
    return _fitted(found, host, template) if found else []


def _is_empty(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) and not len(module)


def _fitted(found: list[FirstBlock], host: Host, template: nn.Module) -> list[FirstBlock]:
    """The same blocks at the host's widths."""
    every = Spaces.of(template, host.probe.x)
    try:
        changes = every.changes(_sizes(every, host.model, [f"{each.block}." for each in found]))
    except DemandError as error:
        raise GrowthError(
            f"No first block fits into {found[0].stack or 'the model'}: {error}."
        ) from error
    return [replace(each, widenings=tuple(_inside(changes, f"{each.block}."))) for each in found]


def _sizes(every: Spaces, model: nn.Module, blocks: list[str]) -> Sizes:
    """Sizes of the template's spaces that make its `blocks` fit into the model."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wanted: dict[int, int] = {}
    ratios = dict.fromkeys(blocks, 1.0)
    own: list[tuple[Space, str]] = []
    for space in every.found:
        reached = [b for b in blocks if any(part.tensor.startswith(b) for part in space.parts)]
        size = _size_in(space, shapes)
        if size is not None and reached:
            wanted[space.node] = size
            ratios |= {block: max(ratios[block], size / space.size) for block in reached}
        elif reached:
            own.append((space, reached[0]))
    known = every.sizes(wanted)
    for space, block in own:
        if not (space.fixed or space.inner or space.node in known.nodes):
            more = round(space.size * (ratios[block] - 1) / space.step) * space.step
            known = every.sizes({**known.nodes, space.node: space.size + more})
    return known


def _size_in(space: Space, shapes: Mapping[str, torch.Size]) -> int | None:
    """Units of the space in a model that has some of its tensors; None where it has none."""
    sizes = [
        shapes[part.tensor][part.dim]
        for part in space.parts
        if part.layout == UNIT and part.tensor in shapes
    ]
    return sizes[0] if sizes else None


def _inside(changes: Iterable[WidenSpace], block: str) -> Iterator[WidenSpace]:
    """What the changes do to tensors and modules of one block."""
    for change in changes:
        parts = tuple(part for part in change.parts if part.tensor.startswith(block))
        resizes = tuple(each for each in change.resizes if f"{each.module}.".startswith(block))
        if parts or resizes:
            yield replace(change, parts=parts, resizes=resizes)
