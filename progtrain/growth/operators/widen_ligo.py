"""Widen by matrices that are learned: every new unit is a mix of old ones (LiGO).

What: one matrix for each space says how its new units are mixed from the old ones. It starts as
copies with a little noise and is trained on the loss for some steps; then it is multiplied into the
weights and forgotten.

Equation: W' = B_out W A_inᵀ with B (H × h) of the space that W computes and A = B / (copies of each
unit) of the space that it reads. Gains, shifts and means are B γ, variances B² σ²; of queries and
keys, the keys take A. With no noise and no steps it is Net2WiderNet with equal shares.

Hyperparameters: spaces, factor, size; steps and lr of Adam on all B; noise, its deviation.

When it fails: it does not preserve the function. Here the B are trained on the probe batch alone,
so many steps fit that batch; running statistics are taken for constants. All weights change, so it
cannot be blended in by a ramp, and the old moments of the optimizer speak of other weights. Depth
is not mixed.

Evidence: the paper saves 44.7 % of BERT's FLOPs, 55 % of the time for ViT; G_stack's comparison
finds its width no better than others (arXiv 2405.15319, figure 3: −15.4 %). Costs `steps` passes.

Reference: Wang et al., Learning to Grow Pretrained Models for Efficient Transformer Training, arXiv
2303.00980.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.layout import moved, positions
from progtrain.growth.newborn import widened
from progtrain.growth.operators.gradients import looking, normal, passes
from progtrain.growth.operators.widen import check_widen, widenings
from progtrain.growth.operators.widen_duplicate import sources
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Part, Role, WidenSpace
from progtrain.objective import cross_entropy

_THERE_AND_BACK = 6.0  # FLOPs of a multiplication: 2 forward, 4 backward


def mixed(value: Tensor, change: WidenSpace, part: Part, mix_HU: Tensor) -> Tensor:
    """A tensor with one dimension's units mixed; entries that belong to no unit stay."""
    dim, before_UK = part.dim, positions(part.layout, change.old)
    after_HK = positions(part.layout, change.new)
    place_D, size = moved(part.layout, change.old, change.new)
    shape = [size if d == dim else length for d, length in enumerate(value.shape)]
    grown = value.new_zeros(shape).index_copy(dim, place_D.to(value.device), value)
    units = value.index_select(dim, before_UK.flatten().to(value.device))
    units = units.unflatten(dim, before_UK.shape).movedim(dim, 0)
    new = torch.tensordot(mix_HU, units, 1).movedim(0, dim).flatten(dim, dim + 1)
    return grown.index_copy(dim, after_HK.flatten().to(value.device), new)


def mix_of(change: WidenSpace, part: Part, B_HU: Tensor, copies_U: Tensor) -> Tensor:
    """What the part's units are mixed by."""
    if part.role is Role.KEY:
        return B_HU / copies_U * change.key_gain
    if change.shares(part):
        return B_HU / copies_U
    if part.role in (Role.MEAN, Role.VARIANCE):  # no gradients of running statistics
        return B_HU.detach() if part.role is Role.MEAN else B_HU.detach().square()
    return B_HU


def weights(
    model: nn.Module, changes: list[WidenSpace], mixes: list[Tensor], copies: list[Tensor]
) -> dict[str, Tensor]:
    """Every grown tensor of the host, by its name."""
    names = {part.tensor for change in changes for part in change.parts}
    values = {name: tensor_of(model, name) for name in sorted(names)}
    for change, B_HU, copies_U in zip(changes, mixes, copies, strict=True):
        for part in change.parts:
            mix_HU = mix_of(change, part, B_HU, copies_U).to(values[part.tensor].dtype)
            values[part.tensor] = mixed(values[part.tensor], change, part, mix_HU)
    return values


def learn(
    grown: Grown, changes: list[WidenSpace], mixes: list[Tensor], copies: list[Tensor],
    steps: int, lr: float,
) -> dict[str, Tensor]:  # fmt: skip
    """The grown tensors by the best of `steps` of Adam on the probe batch's loss."""
    probe, best = grown.host.probe, float("inf")
    found: Mapping[str, Tensor] = {}
    for mix_HU in mixes:
        mix_HU.requires_grad_(True)
    adam = torch.optim.Adam(mixes, lr=lr)
    with looking(grown.model):
        for step in range(steps + 1):
            values = weights(grown.host.model, changes, mixes, copies)
            loss = cross_entropy(functional_call(grown.model, values, (probe.x,)), probe.y)
            if not found or float(loss.detach()) < best:
                best, found = float(loss.detach()), values
            if step < steps:
                for mix_HU, slope in zip(mixes, torch.autograd.grad(loss, mixes), strict=True):
                    mix_HU.grad = slope
                adam.step()
    return {name: value.detach() for name, value in found.items()}


def mixing_flops(grown: Grown) -> float:
    """FLOPs of all products B W, there and back: many where batches are small."""
    total, entries = 0.0, dict[str, float]()
    for change in widened(grown.edit):
        for part in change.parts:
            before = entries.get(part.tensor, tensor_of(grown.host.model, part.tensor).numel())
            total += _THERE_AND_BACK * before * change.new
            entries[part.tensor] = before * change.new / change.old
    return total


@dataclass(frozen=True)
class WidenLigo:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    steps: int = 50  # of Adam on the probe batch
    lr: float = 1e-3
    noise: float = 0.01  # deviation of what is added to copies at first
    preserves = False
    shares = True

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)
        require(0 <= self.steps <= 10_000, "steps", self.steps, "a whole number, 0 to 10000")
        require(0 < self.lr <= 1, "lr", self.lr, "in (0, 1]")
        require(0 <= self.noise <= 1, "noise", self.noise, "in [0, 1]")

    def propose(self, host: Host) -> Edit:
        found = widenings(host, self.spaces, self.factor, self.size)
        return Edit(tuple(replace(change, sharing=space.behind) for space, change in found))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        changes = widened(grown.edit)
        like = next(grown.model.parameters())
        mixes, copies = list[Tensor](), list[Tensor]()
        for change in changes:
            source_H = sources(change, generator)
            copy_HU = nn.functional.one_hot(source_H, change.old).double()
            noise_HU = self.noise * normal(copy_HU.shape, generator)
            mixes.append((copy_HU + noise_HU).to(like).detach())
            copies.append(copy_HU.sum(0).to(like))
        values = learn(grown, changes, mixes, copies, self.steps, self.lr)
        for name, value in values.items():
            tensor_of(grown.model, name).copy_(value)

    def flops(self, grown: Grown) -> float:
        return passes(grown, self.steps) + self.steps * mixing_flops(grown)
