"""AdamW (Loshchilov & Hutter, arXiv 1711.05101) that stays right when a tensor grows.

torch keeps one step count a tensor. Entries that join later have empty moments under an old count:
with β₂ = 0.999 their first update would be 3.2 × the learning rate. Tensors that have grown are
therefore stepped by `SlicedAdamW`, which counts for every entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.optimizers.group import NOTHING, OptimizerSet, State, own, split_decay

_AVERAGES = ("exp_avg", "exp_avg_sq", "ones1", "ones2")
_torch: Any = torch  # which has no public names for operations on many tensors at once


class SlicedAdamW(torch.optim.Optimizer):
    """AdamW with the bias correction kept for every entry.

    Adam divides the moving averages of g and g² by 1 − β^t. That divisor is itself the moving
    average of ones, so it is kept as one: `ones1`, `ones2`, tensors of the parameter's shape. A
    new entry starts all four averages at 0 and is then exactly an entry of a new AdamW.
    """

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            stepping = [p for p in group["params"] if p.grad is not None]
            for kind in dict.fromkeys((p.dtype, p.device) for p in stepping):
                self._step(group, [p for p in stepping if (p.dtype, p.device) == kind])

    def _step(self, group: dict[str, Any], stepping: list[nn.Parameter]) -> None:
        """All tensors at once, as many small ones are a matter of launches."""
        (beta1, beta2), lr = group["betas"], group["lr"]
        grads, states = [p.grad for p in stepping], [self._state(p) for p in stepping]
        first, second, ones1, ones2 = ([state[key] for state in states] for key in _AVERAGES)
        _torch._foreach_lerp_(first, grads, 1 - beta1)
        _torch._foreach_mul_(second, beta2)
        _torch._foreach_addcmul_(second, grads, grads, value=1 - beta2)
        for ones, beta in ((ones1, beta1), (ones2, beta2)):
            _torch._foreach_mul_(ones, beta)
            _torch._foreach_add_(ones, 1 - beta)
        divisors = _torch._foreach_div(second, ones2)
        _torch._foreach_sqrt_(divisors)
        _torch._foreach_add_(divisors, group["eps"])
        _torch._foreach_mul_(divisors, ones1)
        _torch._foreach_mul_(stepping, 1 - lr * group["weight_decay"])
        _torch._foreach_addcdiv_(stepping, first, divisors, value=-lr)

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            for key in _AVERAGES:
                state[key] = torch.zeros_like(parameter)
        return state


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
        """torch's scalar step count t as 1 − β^t in every entry."""
        if "step" not in state:
            return state
        step = float(state["step"])
        kept = {key: value for key, value in state.items() if key != "step"}
        ones1 = torch.full_like(parameter, 1 - self.beta1**step, requires_grad=False)
        ones2 = torch.full_like(parameter, 1 - self.beta2**step, requires_grad=False)
        return {**kept, "ones1": ones1, "ones2": ones2}

    def begun(self, state: State, new: Tensor) -> State:
        return state
