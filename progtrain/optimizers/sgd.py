"""Stochastic gradient descent with momentum: v ← μ v + g; w ← w − η (v or g + μ v)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.optimizers.group import NOTHING, OptimizerSet, State, own, split_decay


@dataclass(frozen=True)
class SGD:
    """`torch.optim.SGD`; new entries of a grown tensor start with momentum 0, as a new run does."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4  # of matrices and kernels; norms and biases do not decay
    groups: Mapping[str, Any] = field(
        default_factory=lambda: NOTHING
    )  # by name: optimizers/group.py

    def __post_init__(self) -> None:
        require(0 < self.lr < 1e6, "lr", self.lr, "a number > 0 and below 1e6")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        ok = not self.nesterov or self.momentum > 0
        require(ok, "nesterov", self.nesterov, "false where momentum is 0")
        require(0 <= self.weight_decay < 1, "weight_decay", self.weight_decay, "in [0, 1)")
        own(self.groups)

    def build(self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]) -> OptimizerSet:
        groups = split_decay(parameters, self.weight_decay)
        sgd = torch.optim.SGD(groups, self.lr, self.momentum, nesterov=self.nesterov)
        return OptimizerSet((sgd,), parameters).grouped(self.groups)

    def per_entry(self, name: str, parameter: nn.Parameter, state: State) -> State:
        return state

    def begun(self, state: State, new: Tensor) -> State:
        return state
