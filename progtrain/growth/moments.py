"""What an optimizer remembers of a tensor, after the tensor has grown.

Where the mathematics of a growth gives the gradients of the grown network as multiples of the old
ones, moments follow: first moments by the same factor, second ones by its square. With g the map
of units of `WidenDuplicate`, m the copies of a unit and equal shares, whatever computes a copy has
1/m of the old gradient and whatever reads it all of it (operators of Net2WiderNet; the tile rule
of staged training, arXiv 2203.06211, is the case of whole factors). A gain or a key that was
multiplied by s at the growth has 1/s of its gradient. Under a padded layer norm this is not exact:
new units, which are the mean, take their part of the gradient's mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from progtrain.growth.grow import Grown
from progtrain.growth.layout import moved, positions
from progtrain.growth.widen_space import Part, Role, WidenSpace
from progtrain.optimizers.group import State

# How a state tensor scales with the gradient; what is not named is a first moment.
_POWERS = {
    **dict.fromkeys(["exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"], 2),
    **dict.fromkeys(["ones1", "ones2", "step_size", "ax"], 0),
}
Follow = Callable[[str, Tensor, int], Tensor]  # (name, state tensor, power) → in its new shape


def power(key: str) -> int:
    return _POWERS.get(key, 1)


def followed(state: State, shape: torch.Size, name: str, follow: Follow) -> State:
    """Every tensor of `shape` by `follow`; counts of the whole tensor stay."""
    return {
        key: follow(name, value, power(key)) if value.shape == shape else value
        for key, value in state.items()
    }


def padded(grown: Grown, name: str, value: Tensor, _: int) -> Tensor:
    """Old entries as they are, new ones 0."""
    return grown.edit.carry(name, value)


def scaled(grown: Grown, name: str, value: Tensor, power: int, copies: bool) -> Tensor:
    """Old entries (and copies of them, with `copies`) by the factor of their gradient; others 0."""
    for change in grown.edit.changes:
        if not isinstance(change, WidenSpace):
            value = change.carry(name, value)
        else:
            source_H = grown.sources.get(change.space)
            for part in change.parts:
                if part.tensor == name:
                    value = _along(value, change, part, source_H, power, copies)
        name = change.rename(name)
    return value


def _along(
    value: Tensor, change: WidenSpace, part: Part, source_H: Tensor | None, power: int, copies: bool
) -> Tensor:
    """One dimension of a state tensor grows."""
    place_D, size = moved(part.layout, change.old, change.new)
    shape = [size if d == part.dim else length for d, length in enumerate(value.shape)]
    grown = value.new_zeros(shape).index_copy_(part.dim, place_D.to(value.device), value)
    factor_H = factors(change, part, source_H) ** power
    count = change.new if copies and source_H is not None else change.old
    if count == change.old and bool((factor_H[:count] == 1).all()):
        return grown
    first_H = torch.arange(change.old) if source_H is None else source_H
    before_UK = positions(part.layout, change.old)[first_H[:count]].to(value.device)
    after_UK = positions(part.layout, change.new)[:count].to(value.device)
    units = value.index_select(part.dim, before_UK.flatten()).unflatten(part.dim, before_UK.shape)
    wide = [-1 if d == part.dim else 1 for d in range(units.ndim)]
    units = units * factor_H[:count].to(units).reshape(wide)
    return grown.index_copy_(part.dim, after_UK.flatten(), units.flatten(part.dim, part.dim + 1))


def factors(change: WidenSpace, part: Part, source_H: Tensor | None) -> Tensor:
    """Gradient of every unit after the growth over that of its source before."""
    every_H = torch.ones(change.new, dtype=torch.float64)
    if part.role is Role.KEY:
        every_H /= change.key_gain
    elif part.role is Role.GAIN and part.tensor in change.rescaled_norms:
        every_H /= change.norm_gain
    if source_H is not None and not change.shares(part):
        every_H /= torch.bincount(source_H, minlength=change.old)[source_H]
    return every_H
