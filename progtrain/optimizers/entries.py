"""Whether an optimizer treats every entry of a tensor by itself: then tensors may be cut anywhere.

It is tried, not declared: the entries of some matrices are put in another order, and each must take
the step that it takes in the first one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from progtrain.contracts import OptimizerRecipe

_MATRICES, _ROWS, _COLUMNS, _STEPS = 4, 4, 6, 3  # the first and last may be treated otherwise


def by_entries(recipe: OptimizerRecipe) -> bool:
    """Whether the steps of `recipe` are the same in any order of entries, and its state as well.

    State must be numbers, or tensors of the parameter's shape. No random number is drawn.
    """
    order = torch.arange(_ROWS * _COLUMNS).roll(7)
    order[::5] = order[::5].flip(0)
    kept, moved = _stepped(recipe, torch.arange(len(order))), _stepped(recipe, order)
    return kept is not None and moved is not None and _alike(kept[:, order], moved)


def _stepped(recipe: OptimizerRecipe, order: Tensor) -> Tensor | None:
    """Entries (matrices, entries) after some steps from entries in `order`; None for a state that
    has another shape than the parameter."""
    generator = torch.Generator().manual_seed(0)

    def drawn() -> Tensor:
        return torch.randn(len(order), generator=generator)[order].view(_ROWS, _COLUMNS)

    held = {f"layer{i}.weight": nn.Parameter(drawn()) for i in range(_MATRICES)}
    made = recipe.build(held, frozenset())
    for _ in range(_STEPS):
        for parameter in held.values():
            parameter.grad = drawn()
        made.step()
    for name, parameter in held.items():
        if any(t.ndim and t.shape != parameter.shape for t in made.state_of(name).values()):
            return None
    return torch.stack([parameter.detach().flatten() for parameter in held.values()])


def _alike(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)
