"""AdamW (Loshchilov & Hutter, arXiv 1711.05101) that stays right when a tensor grows.

torch keeps one step count a tensor. Entries that join later have empty moments under an old count:
with β₂ = 0.999 their first update would be 3.2 × the learning rate. Tensors that have grown are
therefore stepped by `SlicedAdamW`, which counts for every entry, until all have been counted long
enough (optimizers/sliced_adamw.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.optimizers.group import NOTHING, OptimizerSet, State, own, split_decay
from progtrain.optimizers.sliced_adamw import SlicedAdamW


@dataclass(frozen=True)
class AdamW:
    """Decoupled weight decay, moments β₁ and β₂; `torch.optim.AdamW` until a tensor grows."""

    lr: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.01  # of matrices and kernels; norms and biases do not decay
    groups: Mapping[str, Any] = field(
        default_factory=lambda: NOTHING
    )  # by name: optimizers/group.py

    def __post_init__(self) -> None:
        require(0 < self.lr < 1e6, "lr", self.lr, "a number > 0 and below 1e6")
        require(0 <= self.beta1 < 1, "beta1", self.beta1, "in [0, 1)")
        require(0 <= self.beta2 < 1, "beta2", self.beta2, "in [0, 1)")
        require(0 < self.eps < 1, "eps", self.eps, "in (0, 1)")
        require(0 <= self.weight_decay < 1, "weight_decay", self.weight_decay, "in [0, 1)")
        own(self.groups)

    def build(self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]) -> OptimizerSet:
        made = OptimizerSet(self.optimizers(parameters, sliced), parameters)
        return made.grouped(self.groups)

    def optimizers(
        self, parameters: Mapping[str, nn.Parameter], sliced: frozenset[str]
    ) -> tuple[torch.optim.Optimizer, ...]:
        """One optimizer for tensors as they were born, one for those that have grown."""
        whole = {name: p for name, p in parameters.items() if name not in sliced}
        grown = {name: p for name, p in parameters.items() if name in sliced}
        betas = (self.beta1, self.beta2)
        made: list[torch.optim.Optimizer] = []
        if whole:
            groups = split_decay(whole, self.weight_decay)
            # on a GPU the fused one can be told to skip a step without waiting (withheld.py)
            fused = all(p.is_cuda for p in whole.values()) or None
            made.append(torch.optim.AdamW(groups, self.lr, betas, self.eps, fused=fused))
        if grown:
            made.append(
                SlicedAdamW(split_decay(grown, self.weight_decay), self.lr, betas, self.eps)
            )
        return tuple(made)

    def per_entry(self, name: str, parameter: nn.Parameter, state: State) -> State:
        """torch's scalar step count t as 1 − β^t in every entry; 1 where counts were let go."""
        if not state or "ones1" in state:
            return state
        step = float(state.get("step", inf))
        kept = {key: value for key, value in state.items() if key != "step"}
        ones1 = torch.full_like(parameter, 1 - self.beta1**step, requires_grad=False)
        ones2 = torch.full_like(parameter, 1 - self.beta2**step, requires_grad=False)
        return {**kept, "ones1": ones1, "ones2": ones2}

    def begun(self, state: State, new: Tensor) -> State:
        return state
