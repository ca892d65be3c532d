"""What can grow deeper in a network: runs of equal blocks that keep their input's shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from weakref import ref

from torch import Tensor, nn

from progtrain.growth.insert_block import child_names, fill, indexed
from progtrain.growth.newborn import evaluate

_FEW = 2  # samples: shapes do not depend on how many


@dataclass(frozen=True)
class BlockStack:
    """A run of equal blocks inside a `Sequential` or `ModuleList`."""

    name: str  # of the container
    first: int  # index of the first block of the run
    length: int


@dataclass
class _Flow:
    """What one forward says of modules."""

    kept: set[nn.Module] = field(default_factory=lambda: set[nn.Module]())  # their input's shape
    # whose output each module reads, as it is
    sources: dict[nn.Module, set[nn.Module]] = field(
        default_factory=lambda: dict[nn.Module, set[nn.Module]]()
    )

    def follows(self, block: nn.Module, other: nn.Module) -> bool:
        return other in self.sources.get(block, set())


def stacks(model: nn.Module, x: Tensor) -> list[BlockStack]:
    """Every stack of `model`; blocks are modules with parts of their own, not single layers, each
    of which reads what the one in front of it computes.

    A block alone is a stack where all of its container are alike: the one behind a block that
    changes the shape, the only one there is. It is none where it holds stacks of its own (a stage).
    """
    x = x[:_FEW]
    flow = _flow(model, x)
    containers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList) and _orderly(module)
    ]
    found: list[BlockStack] = []
    for name, container in containers:
        blocks = list(container)
        first, length = _longest_run(blocks, flow)
        inside = any(_within(name, stack.name) for stack in found)
        if inside or not length:
            continue
        block, last = blocks[first], first + length - 1
        alone = length == 1 and (not _alike(blocks, block, flow) or _nested(block, flow))
        if not alone and _joins(model, x, container, last):
            found.append(BlockStack(name, first, length))
    return found


def _within(name: str, container: str) -> bool:
    return name.startswith(f"{container}." if container else "")


def _orderly(container: nn.Sequential | nn.ModuleList) -> bool:
    """Whether a block can join: each is there once, and all have names or all an index."""
    names = child_names(container)
    numbered = any(name.isdecimal() for name in names)
    return len(names) == len(container) and (indexed(names) or not numbered)


def _alike(blocks: list[nn.Module], block: nn.Module, flow: _Flow) -> bool:
    """Whether all blocks have the type of `block`, and at least its tensors with its kernels; one
    behind another."""
    own = _kernels(block)
    alike = all(type(b) is type(block) and own.items() <= _kernels(b).items() for b in blocks)
    return alike and all(flow.follows(b, a) for a, b in pairwise(blocks))


def _kernels(block: nn.Module) -> dict[str, tuple[int, ...]]:
    """What is left of the shapes of tensors when widths are not looked at."""
    return {name: (t.ndim, *t.shape[2:]) for name, t in block.state_dict().items()}


def _nested(block: nn.Module, flow: _Flow) -> bool:
    """Whether it is a stage: blocks of one kind repeat in a container of their own inside."""
    return any(
        len(module) > 1 and _repeated(list(module), flow)
        for module in block.modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
    )


def _repeated(blocks: list[nn.Module], flow: _Flow) -> bool:
    """Whether they are of one type, one behind another, and at least two keep the shape."""
    kept = [block for block in blocks if _signature(block, flow)]
    same = all(type(block) is type(blocks[0]) for block in blocks)
    return same and len(kept) > 1 and all(flow.follows(b, a) for a, b in pairwise(blocks))


def _joins(model: nn.Module, x: Tensor, stack: nn.Sequential | nn.ModuleList, last: int) -> bool:
    """Whether the model runs with one block more, which is the last one twice for a moment.

    If that is the only one it must then read what it computes: parallel parts of a list do not.
    """
    names, blocks = child_names(stack), list(stack)
    longer = [*blocks[: last + 1], *blocks[last:]]
    try:
        fill(stack, [str(i) for i in range(len(longer))], longer)
        flow = _flow(model, x)
    except Exception:  # whatever the model's code says of one block too many
        return False
    finally:
        fill(stack, names, blocks)
    return len(blocks) > 1 or flow.follows(blocks[0], blocks[0])


def _flow(model: nn.Module, x: Tensor) -> _Flow:
    """Watch one forward. Tensors are not kept: each says while it lives who has made it."""
    flow, made = _Flow(), dict[int, tuple[ref[Tensor], set[nn.Module]]]()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        read, makers = made.get(id(args[0]), (None, set[nn.Module]())) if args else (None, set())
        if read is not None and read() is args[0]:
            flow.sources.setdefault(module, set()).update(makers)

    def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if not isinstance(out, Tensor):
            return
        if args and isinstance(args[0], Tensor) and args[0].shape == out.shape:
            flow.kept.add(module)
        known, makers = made.get(id(out), (None, set[nn.Module]()))
        alive = known is not None and known() is out
        made[id(out)] = ref(out), {*(makers if alive else ()), module}

    handles = [module.register_forward_pre_hook(enter) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        evaluate(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return flow


def _signature(block: nn.Module, flow: _Flow) -> tuple[Any, ...] | None:
    """What makes two blocks equal; None for a module that cannot be stacked."""
    tensors = tuple((name, tuple(t.shape)) for name, t in block.state_dict().items())
    composite = next(block.children(), None) is not None
    if block not in flow.kept or not composite or not tensors:
        return None
    return type(block), tensors


def _longest_run(blocks: list[nn.Module], flow: _Flow) -> tuple[int, int]:
    """Index of the first block and length of the longest run of equal ones, one behind another."""
    signatures = [_signature(block, flow) for block in blocks]
    best, start = (0, 0), 0
    for i, signature in enumerate(signatures):
        joins = i > 0 and signature == signatures[i - 1] and flow.follows(blocks[i], blocks[i - 1])
        if not joins:
            start = i
        if signature is not None and i - start + 1 > best[1]:
            best = (start, i - start + 1)
    return best
