"""Widen by the best of many candidates, by how fast each would lower the loss.

What: `candidates` × the new units are drawn at random, their incoming and outgoing directions are
improved for a few Adam steps on the first-order decrease of the loss, and those with the steepest
one are kept, read with small weights of the helpful sign.

Equation: unit u adds ε v_u f(w_u x); its score is dL/dε at ε = 0 = ⟨dL/dC_u, v_u⟩, with C_u its
outgoing weights. Adam lowers Σ_u dL/dε over (w, v) at constant norms; the top ones by |dL/dε| stay,
with v turned so that the loss falls. ε is halved, 8 times at most, until it does.

Hyperparameters: spaces, factor, size; candidates for each new unit; steps and lr of Adam (lr
relative to the deviation of old weights); epsilon, the largest norm of new outgoing weights over
old ones.

When it fails: candidates are scored alone, so several that do the same are all kept. The function
moves by the order of epsilon. Under a layer or RMS norm over the units it is widen=zero. The probe
batch decides alone. Splits of old units (the paper's other candidates) are not offered: see
widen=duplicate.

Evidence: with 100 steps close to the best of all growing methods of its time on CIFAR and for few
parameters (paper, figures 3 and 4). Costs candidates × (steps + 1) passes over the probe batch.

Reference: Wu et al., Firefly Neural Architecture Descent, arXiv 2102.08574.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, evaluate, fill_random, widened
from progtrain.growth.operators.gradients import (
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
from progtrain.growth.widen_space import Part, Role, Slab, WidenSpace
from progtrain.objective import cross_entropy

_PASSES = 3.0  # forward, backward and the way back through both, over forward and backward
_HALVINGS = 8


@dataclass(frozen=True)
class Candidates:
    """Candidates for the new units of one space."""

    parts: tuple[Tensor, ...]  # (candidates, …) of every part of the change
    outgoing: Tensor  # v: (candidates, entries) of all consumers
    score: Tensor  # dL/dε

    def best(self, count: int) -> Candidates:
        """The steepest ones, turned downhill."""
        kept = self.score.abs().topk(count).indices
        sign_U1 = torch.where(self.score[kept] > 0, -1.0, 1.0)[:, None]
        parts = tuple(part[kept] for part in self.parts)
        return Candidates(parts, self.outgoing[kept] * sign_U1, self.score[kept])


@dataclass(frozen=True)
class Directions:
    """Where the new units of one space point, while they are being improved."""

    change: WidenSpace
    reading: tuple[Slab, ...]  # stay zero
    producing: tuple[Slab, ...]
    incoming: Tensor  # w, (units, entries)
    outgoing: Tensor  # v, the same


def start(grown: Grown, change: WidenSpace, generator: torch.Generator) -> Directions:
    """Random directions as large as the old ones."""
    model = grown.model
    reading = slabs_of(model, change, Role.CONSUMER)
    producing = slabs_of(model, change, Role.PRODUCER)
    fill_random(grown, change, [Role.PRODUCER], generator)
    zeros_UE = of_model(model, reading)
    drawn_UE = nn.functional.normalize(normal(zeros_UE.shape, generator), dim=1).to(zeros_UE)
    outgoing_UE = typical_norm(grown, change, Role.CONSUMER) * drawn_UE
    incoming_UE = of_model(model, producing)
    return Directions(change, tuple(reading), tuple(producing), incoming_UE, outgoing_UE)


def slopes(grown: Grown, spaces: list[Directions]) -> list[Tensor]:
    """dL/dC of every space where nothing reads its new units, as functions of w."""
    found = gradients(grown.model, grown.host.probe)
    return [rows(found, space.reading) for space in spaces]


def improve(grown: Grown, spaces: list[Directions], steps: int, lr: float) -> None:
    """Lower the sum of all dL/dε by Adam, at constant norms."""
    tensors = [t for space in spaces for t in (space.incoming, space.outgoing)]
    norms = [tensor.norm(dim=1, keepdim=True) for tensor in tensors]
    sizes = [max(float(tensor.std(correction=0)), 1e-12) for tensor in tensors]
    groups = [{"params": [t], "lr": lr * size} for t, size in zip(tensors, sizes, strict=True)]
    adam = torch.optim.Adam(groups)
    for _ in range(steps):
        with looking(grown.model), batch_statistics(grown.model):
            slopes_UE = slopes(grown, spaces)
            score = sum(
                (slope * space.outgoing).sum()
                for slope, space in zip(slopes_UE, spaces, strict=True)
            )
            pull = derivatives(grown.model, torch.as_tensor(score))
        for slope, space in zip(slopes_UE, spaces, strict=True):
            space.incoming.grad = rows(pull, space.producing)
            space.outgoing.grad = slope.detach()
        adam.step()
        for tensor, norm in zip(tensors, norms, strict=True):
            tensor.mul_(norm / tensor.norm(dim=1, keepdim=True).clamp_min(1e-12))
        for space in spaces:
            write_rows(grown.model, space.producing, space.incoming)
        _silence(grown, spaces)


def _silence(grown: Grown, spaces: list[Directions]) -> None:
    """Nothing reads new units, also where those of two spaces meet in one weight."""
    for space in spaces:
        for slab in space.reading:
            slab.write(tensor_of(grown.model, slab.tensor), 0.0)


def draw(
    grown: Grown, changes: list[WidenSpace], steps: int, lr: float, generator: torch.Generator
) -> list[Candidates]:
    """One candidate for each new unit of every space."""
    spaces = [start(grown, change, generator) for change in changes]
    _silence(grown, spaces)
    improve(grown, spaces, steps, lr)
    calibrate(grown.model, grown.edit.slabs(), (), grown.x)
    with looking(grown.model):
        found = [slope.detach() for slope in slopes(grown, spaces)]
    return [
        Candidates(
            tuple(_read(grown, space.change, part) for part in space.change.parts),
            space.outgoing,
            (slope * space.outgoing).sum(1),
        )
        for slope, space in zip(found, spaces, strict=True)
    ]


def _read(grown: Grown, change: WidenSpace, part: Part) -> Tensor:
    slab = change.slab(part, change.old)
    return slab.read(tensor_of(grown.model, part.tensor)).movedim(part.dim, 0)


def pooled(rounds: list[list[Candidates]]) -> list[Candidates]:
    """The candidates of all rounds, by space."""
    return [
        Candidates(
            tuple(torch.cat(parts) for parts in zip(*(c.parts for c in found), strict=True)),
            torch.cat([c.outgoing for c in found]),
            torch.cat([c.score for c in found]),
        )
        for found in zip(*rounds, strict=True)
    ]


def keep(grown: Grown, changes: list[WidenSpace], best: list[Candidates]) -> None:
    """Write what computes the chosen units."""
    for change, found in zip(changes, best, strict=True):
        for part, value in zip(change.parts, found.parts, strict=True):
            slab = change.slab(part, change.old)
            slab.write(tensor_of(grown.model, part.tensor), value.movedim(0, part.dim))


def descend(
    grown: Grown, changes: list[WidenSpace], best: list[Candidates], epsilon: float
) -> None:
    """Read the chosen units by ε v, with ε halved until the loss is below that of silence."""
    silent = _loss(grown)
    for halving in range(_HALVINGS + 1):
        for change, found in zip(changes, best, strict=True):
            reading = slabs_of(grown.model, change, Role.CONSUMER)
            write_rows(grown.model, reading, epsilon * 0.5**halving * found.outgoing)
        if _loss(grown) < silent:
            return


def _loss(grown: Grown) -> float:
    return float(cross_entropy(evaluate(grown.model, grown.x), grown.host.probe.y))


@dataclass(frozen=True)
class WidenFirefly:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    candidates: int = 4  # for each new unit
    steps: int = 10  # of Adam for all candidates
    lr: float = 0.1  # of Adam, over the deviation of old weights
    epsilon: float = 0.1  # largest norm of new outgoing weights over old ones
    preserves = False
    shares = False

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)
        allowed = "a whole number, 1 to 1000"
        require(1 <= self.candidates <= 1000, "candidates", self.candidates, allowed)
        require(0 <= self.steps <= 10_000, "steps", self.steps, "a whole number, 0 to 10000")
        require(0 < self.lr <= 10, "lr", self.lr, "in (0, 10]")
        require(0 < self.epsilon <= 10, "epsilon", self.epsilon, "in (0, 10]")

    def propose(self, host: Host) -> Edit:
        return padded(host, self.spaces, self.factor, self.size)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        fill_silent(grown, generator)
        changes = [change for change in widened(grown.edit) if free(grown.model, change)]
        if not changes:
            return
        rounds = [
            draw(grown, changes, self.steps, self.lr, generator) for _ in range(self.candidates)
        ]
        chosen = zip(changes, pooled(rounds), strict=True)
        best = [found.best(change.new - change.old) for change, found in chosen]
        keep(grown, changes, best)
        calibrate(grown.model, grown.edit.slabs(), (), grown.x)
        descend(grown, changes, best, self.epsilon)

    def flops(self, grown: Grown) -> float:
        count = self.candidates * (_PASSES * self.steps + 1) + (_HALVINGS + 2) / 3
        return passes_if_free(grown, count)
