"""Widen so that activations keep their size, whatever their values become.

What: new rows are copies of old ones or drawn as large as they are; all columns that read the
space, old and new, are scaled so that what they compute keeps its root mean square.

Equation: W' = α [W, W_new] with, for h → H units, α = √(h/H) where rows or columns (or both) are
random; where both are copies α = √(h/(3H − 2h)) up to H = 2h and h/H above, since copies add up in
phase. At whole factors copies of both are Net2WiderNet with equal shares, so exact. Gains of norms
are copied. Both sides random is variance transfer (arXiv 2306.12700), W_old × √(h/H).

Hyperparameters: spaces, factor, size; rows and columns, each `copy` or `random`.

When it fails: it does not preserve the function, but at whole factors by copies. Equal copies stay
copies under most optimizers: new entries start with empty optimizer state here, which parts them,
and warmup=lr re-warms them, as the paper does. It cannot be blended in by a ramp, as the old
weights are scaled. A tied weight is left alone, and the norm before it scaled.

Evidence: with a reset of new state and a re-warmup the best of all ways to double the inner width
of a language model (2.315; exact copies 2.328; from scratch 2.310; paper, ablation).

Reference: SPARKLING, arXiv 2602.02472.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from progtrain.errors import require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import calibrate, fill_random, widened
from progtrain.growth.operators.widen import check_widen, widenings
from progtrain.growth.operators.widen_duplicate import sources
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Part, Role, WidenSpace

_WAYS = ("copy", "random")


def fan_in_scale(old: int, new: int, copies: bool) -> float:
    """α: `copies` where new rows and new columns are both copies."""
    if not copies:
        return sqrt(old / new)
    return sqrt(old / (3 * new - 2 * old)) if new <= 2 * old else old / new


def grow_rows(grown: Grown, change: WidenSpace, way: str, generator: torch.Generator) -> Tensor:
    """Fill everything but columns; the units that new ones are copies of."""
    source_H = sources(change, generator)
    for part in change.parts:
        if part.role is Role.CONSUMER:
            continue
        tensor = tensor_of(grown.model, part.tensor)
        matrix = part.role in (Role.PRODUCER, Role.TIED, Role.KEY) and tensor.ndim > 1
        if way == "copy" or not matrix:
            copied = change.slab(part, 0, change.old).read(tensor)
            copied = copied.index_select(part.dim, source_H.to(tensor.device))
            change.slab(part).write(tensor, copied)
        else:
            fill_random(grown, replace(change, parts=(part,)), [part.role], generator)
        if part.role is Role.KEY:
            _keep_logits(tensor, change, part, source_H if way == "copy" else None)
    return source_H


def _keep_logits(tensor: Tensor, change: WidenSpace, part: Part, source_H: Tensor | None) -> None:
    """Copies of keys share their product with queries; the divisor √units is taken back."""
    value = change.slab(part).read(tensor) * change.key_gain
    if source_H is not None:
        copies_H = torch.bincount(source_H)[source_H].to(value)
        value = value / copies_H.reshape([-1 if d == part.dim else 1 for d in range(value.ndim)])
    change.slab(part).write(tensor, value)


def grow_columns(
    grown: Grown, change: WidenSpace, ways: tuple[str, str], source_H: Tensor, seed: torch.Generator
) -> None:
    """Fill what reads the space, and scale all of it."""
    rows, columns = ways
    for part in change.parts:
        tensor = tensor_of(grown.model, part.tensor)
        if part.role is Role.CONSUMER and columns == "random":
            fill_random(grown, replace(change, parts=(part,)), [part.role], seed)
        elif part.role is Role.CONSUMER:
            copied = change.slab(part, 0, change.old).read(tensor)
            copied = copied.index_select(part.dim, source_H.to(tensor.device))
            change.slab(part).write(tensor, copied)
        if change.shares(part) and part.role is not Role.KEY:
            copies = rows == "copy" and (columns == "copy" or part.role is not Role.CONSUMER)
            scale = fan_in_scale(change.old, change.new, copies)
            change.slab(part).write(tensor, scale * change.slab(part).read(tensor))


@dataclass(frozen=True)
class WidenSparkling:
    """`factor` × the units of every space that matches `spaces` (shell patterns, `|` between)."""

    spaces: str = "*"
    factor: float = 2.0
    size: int | None = None  # units afterwards, instead of a factor
    rows: str = "copy"  # copy, random: what computes new units
    columns: str = "copy"  # copy, random: what reads them
    preserves = False
    shares = True

    def __post_init__(self) -> None:
        check_widen(self.factor, self.size)
        require(self.rows in _WAYS, "rows", self.rows, "copy or random")
        require(self.columns in _WAYS, "columns", self.columns, "copy or random")

    def propose(self, host: Host) -> Edit:
        found = widenings(host, self.spaces, self.factor, self.size)
        return Edit(tuple(replace(change, sharing=space.behind) for space, change in found))

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        changes = widened(grown.edit)
        sources = [grow_rows(grown, change, self.rows, generator) for change in changes]
        for change, source_H in zip(changes, sources, strict=True):
            grow_columns(grown, change, (self.rows, self.columns), source_H, generator)
        if "random" in (self.rows, self.columns):
            calibrate(grown.model, grown.edit.slabs(), (), grown.x)

    def flops(self, grown: Grown) -> float:
        return 0.0
