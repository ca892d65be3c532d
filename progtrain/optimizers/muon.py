"""Muon (Jordan et al. 2024) for hidden matrices, AdamW for everything else.

Momentum of a matrix is orthogonalised by Newton–Schulz steps before it is applied. First and last
layers, kernels, norms and biases are stepped by AdamW, as its authors advise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from progtrain.errors import require
from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.batched_muon import BatchedMuon
from progtrain.optimizers.group import NOTHING, OptimizerSet, State, own


@dataclass(frozen=True)
class Muon:
    """`torch.optim.Muon` beside `AdamW`.

    Momentum is kept without a step count, so new rows and columns that start at 0 are exact.
    """

    lr: float = 0.02  # of matrices under Muon
    momentum: float = 0.95
    weight_decay: float = 0.01
    adamw_lr: float = 3e-3  # of everything else
    adamw_beta1: float = 0.9
    adamw_beta2: float = 0.99
    groups: Mapping[str, Any] = field(
        default_factory=lambda: NOTHING
    )  # by name: optimizers/group.py

    def __post_init__(self) -> None:
        require(0 < self.lr < 1e6, "lr", self.lr, "a number > 0 and below 1e6")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(0 <= self.weight_decay < 1, "weight_decay", self.weight_decay, "in [0, 1)")
        require(0 < self.adamw_lr < 1e6, "adamw_lr", self.adamw_lr, "a number > 0 and below 1e6")
        own(self.groups)

    def build(self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]) -> OptimizerSet:
        hidden = {name: p for name, p in parameters.items() if name in _hidden(parameters)}
        rest = {name: p for name, p in parameters.items() if name not in hidden}
        made = self._adamw().optimizers(rest, sliced) if rest else ()
        if hidden:
            matrices = list(hidden.values())
            kind = BatchedMuon if all(map(_on_a_gpu, matrices)) else torch.optim.Muon
            made = (kind(matrices, self.lr, self.weight_decay, self.momentum), *made)
        return OptimizerSet(made, parameters).grouped(self.groups)

    def per_entry(self, name: str, parameter: nn.Parameter, state: State) -> State:
        return self._adamw().per_entry(name, parameter, state)

    def begun(self, state: State, new: Tensor) -> State:
        return state

    def _adamw(self) -> AdamW:
        betas = (self.adamw_beta1, self.adamw_beta2)
        return AdamW(self.adamw_lr, *betas, weight_decay=self.weight_decay)


def _on_a_gpu(matrix: Tensor) -> bool:
    """Whole, where matrices one after another are a matter of launches."""
    return matrix.is_cuda and not isinstance(matrix, DTensor)


def _hidden(parameters: Mapping[str, nn.Parameter]) -> set[str]:
    """Matrices but for the network's first and last one."""
    kernels = [name for name, p in parameters.items() if p.ndim >= 2]
    ends = {kernels[0], kernels[-1]} if kernels else set[str]()
    return {name for name in kernels if parameters[name].ndim == 2 and name not in ends}
