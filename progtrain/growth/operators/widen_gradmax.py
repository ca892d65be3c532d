"""Widen by units whose gradient is as large as it can be.

What: one side of every new unit is zero, so nothing changes; the other side is chosen on the probe
batch so that the gradient of the zero side is largest. Incoming weights are the zero side where the
activation allows it (f(0) = 0, f'(0) ≠ 0), which is tried out; else outgoing ones are.

Equation: with C the new outgoing weights and G(C) = dL/dP the gradient of the new incoming weights
P at P = 0, which is linear in C, maximise ‖G(C)‖ over orthogonal units of norm `scale` × the mean
norm of old ones. For linear layers without biases the optimum is the top left singular vectors of
M = E[dL/dz hᵀ]. Here it is found for any architecture by C ← orthogonal(Gᵀ G(C)), which autograd
gives as the gradient of ½‖G(C)‖² and which never lowers it. Outgoing side zero: the same with the
roles exchanged; the map is then not linear, so the best of all steps is kept.

Hyperparameters: spaces, factor, size; scale; iterations of the subspace iteration.

When it fails: ReLU has slope 0 at 0 in PyTorch, and batch norm divides by √(0 + eps) in training:
both get the second form. Under a layer or RMS norm over the units it is widen=zero. The probe batch
decides alone; a batch that is not typical, or one that is fitted already (no gradient), misleads.
More units than a unit has outgoing weights: those beyond stay random.

Evidence: better than random and zero units when small networks for images grow (paper, figure 3);
equal to the singular vectors in tests. Costs `iterations` passes that are differentiated twice.

Reference: Evci et al., GradMax: Growing Neural Networks using Gradient Information, arXiv
2201.05125.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, evaluate, widened
from progtrain.growth.operators.gradients import (
    Slabs,
    Tensors,
    batch_statistics,
    derivatives,
    free,
    gradients,
    looking,
    normal,
    of_model,
    passes_if_free,
    rows,
    slabs_of,
    typical_norm,
    write_rows,
)
from progtrain.growth.operators.widen import check_widen, padded
from progtrain.growth.operators.widen_zero import fill_silent
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Role, Slab, WidenSpace

_PASSES = 3.0  # forward, backward and the way back through both, over forward and backward


@dataclass(frozen=True)
class Sides:
    """The two sides of a space's new units: one is zero, the other one is chosen."""

    zero: tuple[Slab, ...]
    chosen: tuple[Slab, ...]
    norm: float  # of a unit's chosen side
    turns: bool = False  # a batch norm leaves only its direction to count


def choose(grown: Grown, spaces: list[Sides], iterations: int) -> None:
    """Turn every chosen side towards the largest gradient of the zero side; the best one stays."""
    model, most = grown.model, [-1.0] * len(spaces)
    best = [of_model(model, side.chosen) for side in spaces]
    for turn in range(iterations + 1):
        with looking(model), batch_statistics(model):
            found = gradients(model, grown.host.probe)
            steepness = [rows(found, side.zero).pow(2).sum() for side in spaces]
            ascent = derivatives(model, torch.stack(steepness).sum()) if turn < iterations else {}
        for i, side in enumerate(spaces):
            if float(steepness[i].detach()) > most[i]:
                most[i], best[i] = float(steepness[i].detach()), of_model(model, side.chosen)
        if turn < iterations:
            _turn(model, spaces, ascent, 1 / (turn + 1))
    for side, value_UE in zip(spaces, best, strict=True):
        write_rows(model, side.chosen, value_UE)
    set_zero(model, spaces)


def _turn(model: nn.Module, spaces: list[Sides], ascent: Tensors, rate: float) -> None:
    """C ← orthogonal(∇), or orthogonal(C + rate · ∇) where only the direction counts.

    Units beyond the number of directions stay as they are, lest they become copies.
    """
    for side in spaces:
        now_UE, way_UE = of_model(model, side.chosen), rows(ascent, side.chosen)
        if side.turns:
            unit = nn.functional.normalize
            way_UE = unit(now_UE, dim=1) + rate * unit(way_UE, dim=1)
        most = min(now_UE.shape)
        write_rows(model, side.chosen, torch.cat([way_UE[:most], now_UE[most:]]))
    set_zero(model, spaces)
    for side in spaces:
        write_rows(model, side.chosen, side.norm * orthogonal(of_model(model, side.chosen)))
    set_zero(model, spaces)


def set_zero(model: nn.Module, spaces: Iterable[Sides]) -> None:
    """Zero sides win where the units of two spaces meet in one weight."""
    for side in spaces:
        for slab in side.zero:
            slab.write(tensor_of(model, slab.tensor), 0.0)


def orthogonal(value_UE: Tensor) -> Tensor:
    """The orthonormal rows nearest to these; rows beyond a basis are only scaled."""
    most = min(value_UE.shape)
    left_UU, _, right_UE = torch.linalg.svd(value_UE[:most].double(), full_matrices=False)
    rest_UE = nn.functional.normalize(value_UE[most:].double(), dim=1)
    return torch.cat([left_UU @ right_UE, rest_UE])


def sides(grown: Grown, change: WidenSpace, scale: float, generator: torch.Generator) -> Sides:
    """Zero incoming weights where that is exact and not dead, else zero outgoing ones."""
    model = grown.model
    reading = slabs_of(model, change, Role.CONSUMER)
    norm = scale * typical_norm(grown, change, Role.CONSUMER)
    if not _has_batch_norm(change):
        start_UE = normal(of_model(model, reading).shape, generator)
        write_rows(model, reading, norm * orthogonal(start_UE))
        if zero := silent_rows(grown, change):
            return Sides(tuple(zero), tuple(reading), norm)
        write_rows(model, reading, 0 * start_UE)
    producing = slabs_of(model, change, Role.PRODUCER)
    norm = scale * typical_norm(grown, change, Role.PRODUCER)
    return Sides(tuple(reading), tuple(producing), norm, turns=_has_batch_norm(change))


def silent_rows(grown: Grown, change: WidenSpace) -> list[Slab]:
    """The incoming weights that have to be zero, now zero; empty, and as before, if that is dead.

    Of keys, queries and values only values have to, of a gated unit only one side; were both, the
    gradient of each would be zero.
    """
    model = grown.model
    before = evaluate(grown.host.model, grown.x)
    values = {
        slab: slab.read(tensor_of(model, slab.tensor))
        for part in change.parts
        if part.role is Role.PRODUCER
        for slab in [change.slab(part, change.old)]
    }
    _write(model, dict.fromkeys(values, 0.0))
    zero: list[Slab] = []
    if not _moved(before, model, grown):
        for slab, value in values.items():
            _write(model, {slab: value})
            if _moved(before, model, grown):
                _write(model, {slab: 0.0})
                zero.append(slab)
    zero = _alive(grown, zero) if zero else []
    if not zero:
        _write(model, values)
    return zero


def _write(model: nn.Module, values: Mapping[Slab, Tensor | float]) -> None:
    for slab, value in values.items():
        slab.write(tensor_of(model, slab.tensor), value)


def _moved(before: Tensor, model: nn.Module, grown: Grown) -> bool:
    gap = (evaluate(model, grown.x) - before).abs().max()
    tolerance = 1e-10 if before.dtype == torch.float64 else 1e-5
    return bool(gap > tolerance * before.abs().max())


def _alive(grown: Grown, zero: Slabs) -> list[Slab]:
    """Those that a gradient reaches."""
    with looking(grown.model):
        found = gradients(grown.model, grown.host.probe)
    return [slab for slab in zero if slab.tensor in found and bool(rows(found, [slab]).any())]


def trials(edit: Edit) -> float:
    """Passes that trying out the sides takes at most."""
    return sum(
        (2 + sum(part.role is Role.PRODUCER for part in change.parts)) / 3 + 1
        for change in widened(edit)
        if not _has_batch_norm(change)
    )


def _has_batch_norm(change: WidenSpace) -> bool:
    return any(part.role is Role.VARIANCE for part in change.parts)


@dataclass(frozen=True)
class WidenGradmax:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    scale: float = 1.0  # norm of the side that is not zero over that of old units
    iterations: int = 10  # passes over the probe batch
    preserves = True
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)
        require(0 < self.scale <= 10, "scale", self.scale, "in (0, 10]")
        allowed = "a whole number, 1 to 1000"
        require(1 <= self.iterations <= 1000, "iterations", self.iterations, allowed)

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor, self.size)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill_silent(grown, generator)
        changes = [change for change in widened(grown.edit) if free(grown.model, change)]
        found = [sides(grown, change, self.scale, generator) for change in changes]
        choose(grown, found, self.iterations if found else 0)
        calibrate(grown.model, grown.edit.slabs(), (), grown.x)

    def flops(self, grown: Grown) -> float:
        return passes_if_free(grown, _PASSES * self.iterations + 1 + trials(grown.edit))
