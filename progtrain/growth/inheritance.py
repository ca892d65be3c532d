"""What became of every tensor of the host in a growth: a report by name, with both shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.edits import Edit


@dataclass(frozen=True)
class Fate:
    """A tensor before and after a growth; None where it is not there."""

    name: str  # that it has now, or had where nothing is left of it
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"{self.name} {self.before or 'nothing'} → {self.after or 'nothing'}"


@dataclass(frozen=True)
class Inheritance:
    """All tensors of a grown network and of its host, each in one list."""

    whole: tuple[Fate, ...]  # equal shapes, equal bits
    corner: tuple[Fate, ...]  # bit for bit in the leading corner, of every packed part, of a larger
    changed: tuple[Fate, ...]  # in place, but with other values: shared out, or rescaled
    new: tuple[Fate, ...]
    unfit: tuple[Fate, ...]  # of the host, of which the grown network has nothing

    def describe(self) -> str:
        """The counts in one line, and by name whatever did not fit."""
        counts = [
            f"{len(self.whole)} tensors whole",
            f"{len(self.corner)} in the corner of a larger one",
            *([f"{len(self.changed)} with other values"] if self.changed else []),
        ]
        told = f"inherited {', '.join(counts)}; {len(self.new)} new"
        names = ", ".join(map(str, self.unfit))
        return f"{told}; DID NOT FIT: {names}" if names else told

    def to_json(self) -> dict[str, Any]:
        return {
            kind: [{**asdict(fate), **_lists(fate)} for fate in getattr(self, kind)]
            for kind in KINDS
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Inheritance:
        return Inheritance(**{kind: tuple(map(_fate, data[kind])) for kind in KINDS})


KINDS = tuple(field.name for field in fields(Inheritance))


def inheritance(host: Mapping[str, Tensor], grown: Mapping[str, Tensor], edit: Edit) -> Inheritance:
    """Compare tensors by name before and after `edit`, values included.

    A tensor that has several names is looked at under its first one (`own_tensors`).
    """
    found: dict[str, list[Fate]] = {kind: [] for kind in KINDS}
    left = dict(grown)
    for name, old in host.items():
        target = edit.rename(name)
        now = left.pop(target, None)
        kind = _kind(edit, name, old, now)
        after = None if now is None else tuple(now.shape)
        told = name if now is None else target
        found[kind].append(Fate(told, tuple(old.shape), after))
    found["new"] = [Fate(name, None, tuple(tensor.shape)) for name, tensor in left.items()]
    return Inheritance(**{kind: tuple(fates) for kind, fates in found.items()})


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once however many modules share it."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@torch.no_grad()
def _kind(edit: Edit, name: str, old: Tensor, now: Tensor | None) -> str:
    carried = edit.carry(name, old)
    if now is None or carried.shape != now.shape:
        return "unfit"
    kept = edit.carry(name, torch.ones_like(old, dtype=torch.bool))
    if not torch.equal(now.to(old.device)[kept], carried[kept]):
        return "changed"
    return "whole" if now.shape == old.shape else "corner"


def _lists(fate: Fate) -> dict[str, Any]:
    return {
        "before": None if fate.before is None else list(fate.before),
        "after": None if fate.after is None else list(fate.after),
    }


def _fate(data: Mapping[str, Any]) -> Fate:
    before, after = (None if data[key] is None else tuple(data[key]) for key in ("before", "after"))
    return Fate(data["name"], before, after)
