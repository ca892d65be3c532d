"""The proof of every growth: what the grown network computes against what the host computed.

Both run on the same probe batch in evaluation mode (dropout off, running statistics, which the
operators have set for what is new), in full precision, with new parts at the strength they start
with. So the figures are the growth's own and nothing else's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from progtrain.errors import GrowthError
from progtrain.growth.edits import Change, Edit
from progtrain.growth.first_block import FirstBlock
from progtrain.growth.grow import Grown, Host, grow
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.insert_module import InsertModule
from progtrain.growth.newborn import evaluate
from progtrain.growth.widen_space import WidenSpace
from progtrain.objective import cross_entropy
from progtrain.settings import Proof

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}  # relative to the largest output
_COARSE = 1e-2  # in half precision


@dataclass(frozen=True)
class Measured:
    """How far a growth moved the network's output on the probe batch."""

    change: float  # max |Δoutput|
    error: float  # max |Δoutput| / max |output|
    loss_before: float
    loss_after: float


def measure(before: Tensor, after: Tensor, y: Tensor) -> Measured:
    """Compare outputs (batch, ..., classes); classes that have joined are left out."""
    shared = after[..., : before.shape[-1]]
    if shared.shape != before.shape:
        raise GrowthError(
            f"The grown network's output is {tuple(after.shape)}, the host's was"
            f" {tuple(before.shape)}."
        )
    if not bool(torch.isfinite(after).all()):
        raise GrowthError("The grown network gives numbers that are not finite.")
    change = float((shared - before).abs().max())
    error = change / max(float(before.abs().max()), 1e-12)
    losses = [float(cross_entropy(logits, y)) for logits in (before, after)]
    return Measured(change, error, *losses)


def judge(measured: Measured, promised: bool, proof: Proof, before: Tensor, edit: Edit) -> None:
    """Raise `GrowthError` where a growth moved the function more than it may."""
    tolerance = proof.tolerance
    if tolerance is None:
        tolerance = TOLERANCE.get(before.dtype, _COARSE)
    if measured.error <= tolerance or not (promised or proof.required):
        return
    why = "was to preserve the function" if promised else "must, by proof.required=true, keep it"
    raise GrowthError(
        f"Growth by {edit.brief()} {why} and changed it by {measured.error:.2g} of its size"
        f" (proof.tolerance: {tolerance:g}). The network is as it was."
        + (f" {edit.inexact}." if edit.inexact else "")
    )


def culprits(grown: Grown, operator: Any, seed: int) -> str:
    """Which spaces or stacks move the output when they grow alone, most first."""
    found = [
        (_alone(grown.host, operator, field, name, seed), name)
        for field, name in dict.fromkeys(_place(change) for change in grown.edit.changes)
        if field in {each.name for each in fields(operator)}
    ]
    bad = sorted((pair for pair in found if pair[0] > 1e-6), reverse=True)
    named = ", ".join(f"{name} ({error:.2g})" for error, name in bad[:3])
    return f" {type(operator).__name__} alone moves it by {named}." if named else ""


def _place(change: Change) -> tuple[str, str]:
    """The setting that chooses what a change grows, and its value."""
    match change:
        case WidenSpace():
            return "spaces", change.space
        case InsertBlock() | FirstBlock():
            return "stacks", change.stack
        case InsertModule():
            return "modules", change.module
        case _:
            return "", ""


def _alone(host: Host, operator: Any, field: str, name: str, seed: int) -> float:
    """The relative change of the output when one space grows; 0 where it cannot alone."""
    try:
        grown = grow(host, replace(operator, **{field: name}), seed)
        before, after = (evaluate(model, host.probe.x) for model in (host.model, grown.model))
        return measure(before, after, host.probe.y).error
    except (GrowthError, RuntimeError, ValueError):
        return 0.0
