"""The first block of a stack that has none: the change as data.

A block cannot be told as plain data, but the network's class knows how it builds one. The change
names a stack of the template, which is the start network with a block where it has none; its block
is brought to the widths of now by the changes that the template itself would need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.widen_space import WidenSpace
from progtrain.run import Template


def with_blocks(start: Mapping[str, int | float]) -> dict[str, int | float]:
    """Settings of the template: one block where the start network has 0 (or the model's own)."""
    none = [name for name, value in start.items() if not value]
    return {**start, **dict.fromkeys(none or ["depth"], 1)}


def build(template: Template, like: nn.Module) -> nn.Module:
    """The template on the device and in the precision of `like`; global random numbers stay."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        built = template()
    tensor = next(like.parameters())
    return built.to(tensor.device, tensor.dtype)


@dataclass(frozen=True)
class FirstBlock:
    """The block of the template's stack `stack` joins the empty one, made wider by `widenings`."""

    stack: str
    widenings: tuple[WidenSpace, ...] = ()  # of what is in the block

    def rename(self, name: str) -> str:
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        return tensor

    @property
    def block(self) -> str:
        return f"{self.stack}.0" if self.stack else "0"

    def apply(self, model: nn.Module, template: Template) -> None:
        stack, built = model.get_submodule(self.stack), build(template, model)
        assert isinstance(stack, nn.Sequential | nn.ModuleList)
        for change in self.widenings:
            change.apply(built)
        stack.append(built.get_submodule(self.block).train(stack.training))

    def revert(self, model: nn.Module) -> None:
        """Take the block out again."""
        stack = model.get_submodule(self.stack)
        assert isinstance(stack, nn.Sequential | nn.ModuleList)
        del stack[0]

    def to_json(self) -> dict[str, Any]:
        return {"stack": self.stack, "widenings": [w.to_json() for w in self.widenings]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> FirstBlock:
        return FirstBlock(data["stack"], tuple(map(WidenSpace.from_json, data["widenings"])))
