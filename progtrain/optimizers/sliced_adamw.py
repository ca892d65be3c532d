"""AdamW with the bias correction kept for every entry, for tensors whose entries differ in age.

Adam divides the moving averages of g and g² by 1 − β^t. That divisor is itself the moving average
of ones, so it is kept as one: `ones1`, `ones2`, tensors of the parameter's shape. A new entry
starts all four averages at 0 and is then exactly an entry of a new AdamW. Where all have come to 1
nothing is divided any more: they are let go, and torch's fused AdamW does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from progtrain.hardware.shards import local
from progtrain.withheld import Withheld, undone_where

_MOMENTS, _ONES = ("exp_avg", "exp_avg_sq"), ("ones1", "ones2")
_LATE = 2.0**40  # a step count whose powers of β are 0
_torch: Any = torch  # which has no public names for operations on many tensors at once


class SlicedAdamW(torch.optim.Optimizer):
    """A parameter of shape S has `exp_avg` and `exp_avg_sq` of S, and while its entries count
    `ones1` and `ones2` of S."""

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.step_unless(False)

    @torch.no_grad()
    def step_unless(self, withheld: Withheld) -> None:
        """A step of which nothing stays where `withheld` is 1; waits for no device."""
        for group in self.param_groups:
            stepping = [p for p in group["params"] if p.grad is not None]
            for kind in dict.fromkeys((p.dtype, p.device) for p in stepping):
                alike = [p for p in stepping if (p.dtype, p.device) == kind]
                states = [self._state(p) for p in alike]
                for counts, step in ((True, _counted), (False, _fused)):
                    chosen = [at for at, each in enumerate(states) if (_ONES[0] in each) is counts]
                    if chosen:
                        step(
                            group, [alike[a] for a in chosen], [states[a] for a in chosen], withheld
                        )

    @torch.no_grad()
    def settle(self, largest: Callable[[Tensor], Tensor]) -> None:
        """Let counts go that have all come to 1, as near as rounded averages of ones do: to
        ε / (1 − β), which in float32 is 1.2e-5 with β₂ = 0.99, after some 1,100 steps.

        `largest` is over all processes that hold parts of the tensors. Waits for the device.
        """
        counted = [
            (self.state[parameter], group["betas"])
            for group in self.param_groups
            for parameter in group["params"]
            if _ONES[0] in self.state.get(parameter, ())
        ]
        if not counted:
            return
        left = torch.stack([_left(state, betas) for state, betas in counted])
        for (state, _), far in zip(counted, largest(left).tolist(), strict=True):
            if far <= 1:
                for key in _ONES:
                    del state[key]

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            for key in (*_MOMENTS, *_ONES):
                state[key] = torch.zeros_like(parameter)
        return state


def _left(state: dict[str, Tensor], betas: tuple[float, float]) -> Tensor:
    """What the least of the counts lack of 1, over what rounding may leave; 0 in an empty shard."""
    parts = [(local(state[key]), 1 - beta) for key, beta in zip(_ONES, betas, strict=True)]
    ones, _ = parts[0]
    if not ones.numel():
        return ones.new_zeros(())
    least = torch.stack([(1 - ones.min()) * rate for ones, rate in parts]).max()
    return least / min(torch.finfo(ones.dtype).eps, torch.finfo(torch.float32).eps)


def _counted(
    group: dict[str, Any],
    stepping: list[nn.Parameter],
    states: list[dict[str, Tensor]],
    withheld: Withheld,
) -> None:
    """All tensors at once, as many small ones are a matter of launches."""
    if withheld is False:
        _step(group, stepping, states)
        return
    tensors = [t for p, state in zip(stepping, states, strict=True) for t in (p, *state.values())]
    with undone_where(withheld, tensors):
        _step(group, stepping, states)


def _step(
    group: dict[str, Any], stepping: list[nn.Parameter], states: list[dict[str, Tensor]]
) -> None:
    (beta1, beta2), lr = group["betas"], group["lr"]
    grads = [p.grad for p in stepping]
    first, second, ones1, ones2 = ([s[key] for s in states] for key in (*_MOMENTS, *_ONES))
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


def _fused(
    group: dict[str, Any],
    stepping: list[nn.Parameter],
    states: list[dict[str, Tensor]],
    withheld: Withheld,
) -> None:
    """torch's kernel, of a step so late that it corrects nothing."""
    parts = [local(p.detach()) for p in stepping]
    grads = [local(p.grad) for p in stepping if p.grad is not None]
    late = torch.full((), _LATE, dtype=torch.float32, device=parts[0].device)
    beta1, beta2 = group["betas"]
    _torch._fused_adamw_(
        parts,
        [in_order_of(part, grad) for part, grad in zip(parts, grads, strict=True)],
        *([local(state[key]) for state in states] for key in _MOMENTS),
        [],
        [late] * len(parts),
        amsgrad=False,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
        grad_scale=None,
        found_inf=withheld if isinstance(withheld, Tensor) else None,
    )


def in_order_of(like: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` of the same shape, as `like` lies in memory: fused kernels take that for granted."""
    if isinstance(tensor, DTensor) or tensor.stride() == like.stride():
        return tensor
    place = torch.empty_strided(like.shape, like.stride(), dtype=tensor.dtype, device=tensor.device)
    return place.copy_(tensor)
