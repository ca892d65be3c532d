"""Any optimizer of `torch.optim` whose state has the shape of its parameter.

They keep one step count a tensor, and there is none for each entry. Second moments of entries that
join an older tensor therefore begin at the mean of the old ones: with zeros under an old count
Adam's first update would be 3 × the learning rate (optimizers/adamw.py, which is exact instead).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import did_you_mean, require
from progtrain.optimizers.group import NOTHING, OptimizerSet, State, own, split_decay

_OTHERS = {
    "Optimizer": "it is the base of all",
    "LBFGS": "it needs the loss several times a step",
    "SparseAdam": "gradients are not sparse",
    "Adafactor": "its state has not the shape of the parameters",
    "Muon": "optimizer=muon steps what is no matrix as well",
}
_SECOND = ("exp_avg_sq", "max_exp_avg_sq")  # divided by 1 − β₂^t with t the tensor's count


def names() -> list[str]:
    kinds = {name: kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
    return sorted(
        n for n, k in kinds.items() if issubclass(k, torch.optim.Optimizer) and n not in _OTHERS
    )


@dataclass(frozen=True)
class TorchOptimizer:
    """`torch.optim.<name>` with two groups: what decays, and norms and biases."""

    name: str = "NAdam"
    lr: float = 2e-3
    weight_decay: float = 0.0  # of matrices and kernels; norms and biases do not decay
    arguments: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any]())
    groups: Mapping[str, Any] = field(
        default_factory=lambda: NOTHING
    )  # by name: optimizers/group.py

    def __post_init__(self) -> None:
        reason = f" ({_OTHERS[self.name]})" if self.name in _OTHERS else ""
        hint = did_you_mean(self.name, names()).strip()
        allowed = f"one of {', '.join(names())}"
        require(self.name in names(), "name", f"{self.name}{reason}", allowed, hint)
        require(0 < self.lr < 1e6, "lr", self.lr, "a number > 0 and below 1e6")
        require(0 <= self.weight_decay < 1, "weight_decay", self.weight_decay, "in [0, 1)")
        own(self.groups)
        try:
            self.build({"weight": nn.Parameter(torch.zeros(1))}, frozenset())
        except (TypeError, ValueError, RuntimeError) as error:
            told = f"arguments of torch.optim.{self.name}"
            require(False, "arguments", dict(self.arguments), told, f"It says: {error}.")

    def build(self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]) -> OptimizerSet:
        groups = split_decay(parameters, self.weight_decay)
        kind = getattr(torch.optim, self.name)
        made = kind(groups, lr=self.lr, **self.arguments)
        return OptimizerSet((made,), parameters).grouped(self.groups)

    def per_entry(self, name: str, parameter: nn.Parameter, state: State) -> State:
        return state

    def begun(self, state: State, new: Tensor) -> State:
        return {
            key: _with_mean(value, new) if key in _SECOND and value.shape == new.shape else value
            for key, value in state.items()
        }


def _with_mean(value: Tensor, new: Tensor) -> Tensor:
    """New entries that have no past get the mean of the old ones."""
    return torch.where(new & (value == 0), value[~new].mean(), value)
