"""`torch.optim.Muon` that orthogonalises all matrices of one shape at once, as GPUs like it.

The same update, to the rounding of bfloat16; state, settings and their names are torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor

_torch: Any = torch  # whose operations on lists have no types


class BatchedMuon(torch.optim.Muon):
    """For plain tensors of one device."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of all parameters that have gradients."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._step(parameters, group)

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """A step of matrices of one shape."""
        grads = [parameter.grad for parameter in parameters]
        momenta = [self._momentum(parameter) for parameter in parameters]
        _torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
        ahead = _torch._foreach_lerp(grads, momenta, group["momentum"])
        update_NRC = orthogonalised(
            torch.stack(list(ahead)), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        rows, columns = parameters[0].shape
        rate = float(group["lr"])
        _torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        updates = list(update_NRC.to(parameters[0].dtype).unbind())
        _torch._foreach_add_(parameters, updates, alpha=-rate * sqrt(max(1, rows / columns)))

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def orthogonalised(
    matrix_NRC: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """N matrices near the closest orthogonal ones, in bfloat16: a quintic Newton-Schulz iteration
    (Jordan et al., Muon, 2024)."""
    a, b, c = coefficients
    tall = matrix_NRC.shape[1] > matrix_NRC.shape[2]
    x_NRC = matrix_NRC.mT.bfloat16() if tall else matrix_NRC.bfloat16()
    x_NRC = x_NRC / x_NRC.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram_NRR = x_NRC @ x_NRC.mT
        step_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, step_NRR, x_NRC, beta=a)
    return x_NRC.mT if tall else x_NRC
