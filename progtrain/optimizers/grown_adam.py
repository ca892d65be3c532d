"""`torch.optim.Adam` and `AdamW` for networks that grow, as one optimizer.

Tensors as they were born are stepped by torch. One whose entries have different ages has `ones1`
and `ones2` in its state, the moving averages of ones that Adam's bias correction divides by
(optimizers/adamw.py), and is stepped entry by entry; a new entry is then an entry of a new Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class GrownAdam(torch.optim.Adam):
    """Built like `torch.optim.Adam`, and the same until something grows."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        aged = [
            (group, parameter)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and "ones1" in self.state.get(parameter, {})
        ]
        held = [parameter.grad for _, parameter in aged]
        for _, parameter in aged:
            parameter.grad = None  # torch's step passes it over
        try:
            _unhooked(type(self))(self)
        finally:
            for (_, parameter), gradient in zip(aged, held, strict=True):
                parameter.grad = gradient
        for group, parameter in aged:
            _step(group, parameter, self.state[parameter])
        return loss


class GrownAdamW(GrownAdam, torch.optim.AdamW):
    """Built like `torch.optim.AdamW`, and the same until something grows."""


def _unhooked(kind: type[GrownAdam]) -> Callable[[torch.optim.Optimizer], Any]:
    """Adam's step without the wrapper that runs hooks: the one of our own step runs them."""
    step: Any = torch.optim.Adam.step
    return step.__wrapped__ if getattr(step, "hooked", False) else step


@torch.no_grad()
def _step(group: dict[str, Any], parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
    """One step of a tensor with a bias correction for each entry."""
    (beta1, beta2), lr = group["betas"], group["lr"]
    assert parameter.grad is not None
    grad = -parameter.grad if group["maximize"] else parameter.grad
    if group.get("decoupled_weight_decay"):
        parameter.mul_(1 - lr * group["weight_decay"])
    elif group["weight_decay"]:
        grad = grad.add(parameter, alpha=group["weight_decay"])
    state["step"] += 1
    first, second = state["exp_avg"], state["exp_avg_sq"]
    first.lerp_(grad, 1 - beta1)
    second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    ones1 = state["ones1"].mul_(beta1).add_(1 - beta1)
    ones2 = state["ones2"].mul_(beta2).add_(1 - beta2)
    if group["amsgrad"]:
        second = torch.maximum(state["max_exp_avg_sq"], second, out=state["max_exp_avg_sq"])
    denominator = (second / ones2).sqrt_().add_(group["eps"]).mul_(ones1)
    parameter.sub_(lr * first / denominator)


def aged(state: dict[str, Tensor], parameter: nn.Parameter, betas: tuple[float, float]) -> None:
    """Count each entry's steps in `state`, in place, where so far the tensor's were counted."""
    if "step" in state and "ones1" not in state:
        step = float(state["step"])
        state["ones1"] = torch.full_like(parameter, 1 - betas[0] ** step, requires_grad=False)
        state["ones2"] = torch.full_like(parameter, 1 - betas[1] ** step, requires_grad=False)
