"""A block that joins a stack of equal blocks: the change as data."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class InsertBlock:
    """A block joins a stack at position `at`, shaped as the block `source` of the stack now.

    Where the stack calls its blocks by index, those behind move up. Where it has names for them
    (`block1-0`), the new one is called `child` and the others keep theirs.
    """

    stack: str
    at: int
    source: int
    child: str = ""  # empty where blocks are called by index

    def rename(self, name: str) -> str:
        """Where a module or tensor of that name is afterwards."""
        prefix = f"{self.stack}." if self.stack else ""
        index, dot, rest = name.removeprefix(prefix).partition(".")
        indexed = not self.child and name.startswith(prefix) and index.isdecimal()
        if not indexed or int(index) < self.at:
            return name
        return f"{prefix}{int(index) + 1}{dot}{rest}"

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        return tensor

    @property
    def block(self) -> str:
        child = self.child or str(self.at)
        return f"{self.stack}.{child}" if self.stack else child

    def apply(self, model: nn.Module) -> None:
        stack = container(model, self.stack)
        names = child_names(stack)
        blocks: list[nn.Module] = [getattr(stack, name) for name in names]
        blocks.insert(self.at, copy.deepcopy(blocks[self.source]))
        fill(stack, inserted(names, self.at, self.child), blocks)

    def revert(self, model: nn.Module) -> None:
        """Take the block out again."""
        stack = container(model, self.stack)
        names = child_names(stack)
        blocks: list[nn.Module] = [getattr(stack, name) for name in names]
        del blocks[self.at]
        kept = names[: self.at] + names[self.at + 1 :]
        fill(stack, kept if self.child else names[:-1], blocks)

    def describe(self) -> str:
        return f"+1 block in {self.stack or 'the model'} at {self.at}"


def container(model: nn.Module, name: str) -> nn.Sequential | nn.ModuleList:
    stack = model.get_submodule(name)
    assert isinstance(stack, nn.Sequential | nn.ModuleList)
    return stack


def child_names(stack: nn.Module) -> list[str]:
    return [name for name, _ in stack.named_children()]


def indexed(names: Sequence[str]) -> bool:
    """Whether blocks are called by their index, as torch does by itself."""
    return list(names) == [str(i) for i in range(len(names))]


def new_child(names: Sequence[str], source: int) -> str:
    """How a copy of the block at `source` is called: as it is, with the next free number."""
    if indexed(names):
        return ""
    stem = names[source].rstrip("0123456789")
    numbers = [n.removeprefix(stem) for n in names if n.startswith(stem)]
    return f"{stem}{1 + max((int(n) for n in numbers if n.isdecimal()), default=0)}"


def inserted(names: Sequence[str], at: int, child: str) -> list[str]:
    """Names of the blocks once one has joined."""
    if child:
        return [*names[:at], child, *names[at:]]
    return [str(i) for i in range(len(names) + 1)]


def fill(stack: nn.Module, names: Sequence[str], blocks: Sequence[nn.Module]) -> None:
    """Give the stack these blocks, in this order."""
    inside = [name for name, _ in stack.named_modules(remove_duplicate=False)]
    for name in (name for name in inside if name and "." not in name):
        delattr(stack, name)
    for name, block in zip(names, blocks, strict=True):
        stack.add_module(name, block)
