"""Structural changes as data: the list of edits rebuilds any shape a network has ever had."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor, nn

from progtrain.growth.add_head import AddHead
from progtrain.growth.first_block import FirstBlock
from progtrain.growth.insert_block import (
    InsertBlock,
    child_names,
    container,
    inserted,
    new_child,
)
from progtrain.growth.insert_module import InsertModule
from progtrain.growth.widen_space import Slab, WidenSpace
from progtrain.run import Template, no_template

_NAMED = 6  # changes that a line on the screen names
Change = WidenSpace | InsertBlock | FirstBlock | InsertModule | AddHead


@dataclass(frozen=True)
class Edit:
    """Changes applied in order; each speaks of names as they are when its turn comes."""

    changes: tuple[Change, ...]

    def settled(self, model: nn.Module) -> Edit:
        """The same edit, with a name for each block that joins a stack whose blocks have names."""
        names: dict[str, list[str]] = {}
        settled: list[Change] = []
        for change in self.changes:
            if isinstance(change, InsertBlock):
                if change.stack not in names:
                    names[change.stack] = child_names(container(model, change.stack))
                now = names[change.stack]
                change = replace(change, child=new_child(now, change.source))
                names[change.stack] = inserted(now, change.at, change.child)
            elif isinstance(change, FirstBlock):
                names[change.stack] = [change.block.rpartition(".")[2]]
            settled.append(change)
        return Edit(tuple(settled))

    def apply(self, model: nn.Module, template: Template = no_template) -> None:
        """Change `model` in place; new entries are zero, new blocks copies of their source, first
        blocks as the template has them."""
        for change in self.changes:
            if isinstance(change, FirstBlock):
                change.apply(model, template)
            else:
                change.apply(model)

    def revert(self, model: nn.Module) -> None:
        """Take out again what the edit has added; what is left keeps the values it has now."""
        for change in reversed(self.changes):
            change.revert(model)

    def rename(self, name: str) -> str:
        for change in self.changes:
            name = change.rename(name)
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        """What has the shape of tensor `name` before the edit, in the shape after it."""
        for change in self.changes:
            tensor = change.carry(name, tensor)
            name = change.rename(name)
        return tensor

    def slabs(self) -> tuple[Slab, ...]:
        """New entries of tensors that were there before, under the names after the edit."""
        slabs: list[Slab] = []
        for change in self.changes:
            slabs = _renamed(slabs, change)
            slabs += [] if isinstance(change, InsertBlock | FirstBlock) else change.slabs()
        return tuple(slabs)

    def follow(self, slabs: Iterable[Slab]) -> tuple[Slab, ...]:
        """Entries of tensors before the edit, where they are after it."""
        for change in self.changes:
            slabs = _followed(slabs, change)
        return tuple(slabs)

    def blocks(self) -> tuple[str, ...]:
        """New blocks, under the names after the edit."""
        blocks: list[str] = []
        for change in self.changes:
            blocks = [change.rename(block) for block in blocks]
            blocks += [change.block] if isinstance(change, InsertBlock | FirstBlock) else []
        return tuple(blocks)

    def inserted(self) -> tuple[str, ...]:
        """New modules beside or behind the host's, under the names after the edit."""
        inserted: list[str] = []
        for change in self.changes:
            inserted = [change.rename(name) for name in inserted]
            inserted += [change.inserted] if isinstance(change, InsertModule) else []
        return tuple(inserted)

    def heads(self) -> tuple[str, ...]:
        """New heads, under the names after the edit."""
        heads: list[str] = []
        for change in self.changes:
            heads = [change.rename(name) for name in heads]
            heads += [change.new] if isinstance(change, AddHead) else []
        return tuple(heads)

    def describe(self) -> str:
        """What grows, in words."""
        return ", ".join(self._described())

    def brief(self) -> str:
        """What grows, in one line: the first changes, and how many more there are."""
        every = self._described()
        more = [f"and {len(every) - _NAMED} more"] if len(every) > _NAMED else []
        return ", ".join([*every[:_NAMED], *more])

    def _described(self) -> list[str]:
        widened = [c.describe() for c in self.changes if isinstance(c, WidenSpace)]
        added: dict[str, int] = {}
        for change in self.changes:
            if isinstance(change, InsertBlock | FirstBlock):
                added[change.stack] = added.get(change.stack, 0) + 1
        deeper = [
            f"+{n} block{'s' if n > 1 else ''} in {stack or 'the model'}"
            for stack, n in added.items()
        ]
        others = [c.describe() for c in self.changes if isinstance(c, AddHead | InsertModule)]
        return widened + deeper + others

    def to_json(self) -> list[dict[str, Any]]:
        return [_change_to_json(change) for change in self.changes]

    @staticmethod
    def from_json(data: Iterable[dict[str, Any]]) -> Edit:
        return Edit(tuple(_change_from_json(item) for item in data))

    @property
    def answers(self) -> bool:
        """Whether what joins answers at once, so that no warmup can begin with it silent."""
        return any(isinstance(change, AddHead) for change in self.changes)

    @property
    def inexact(self) -> str:
        """Why this change cannot preserve the function; empty if it can."""
        reasons = [c.inexact for c in self.changes if isinstance(c, WidenSpace)]
        return next((reason for reason in reasons if reason), "")


def _followed(slabs: Iterable[Slab], change: Change) -> list[Slab]:
    """The same entries after a change."""
    if isinstance(change, WidenSpace):
        parts = {(part.tensor, part.dim): part for part in change.parts}
        touching = [(slab, parts.get((slab.tensor, slab.dim))) for slab in slabs]
        return [slab.after(p, change.old, change.new) if p else slab for slab, p in touching]
    return _renamed(slabs, change)


def _renamed(slabs: Iterable[Slab], change: Change) -> list[Slab]:
    if isinstance(change, WidenSpace):
        return list(slabs)
    return [
        replace(
            slab,
            tensor=change.rename(slab.tensor),
            readers=tuple(change.rename(reader) for reader in slab.readers),
        )
        for slab in slabs
    ]


def _change_to_json(change: Change) -> dict[str, Any]:
    match change:
        case WidenSpace():
            return {"change": "widen", **change.to_json()}
        case InsertBlock():
            return {"change": "insert", **asdict(change)}
        case FirstBlock():
            return {"change": "first", **change.to_json()}
        case InsertModule():
            return {"change": "module", **change.to_json()}
        case AddHead():
            return {"change": "head", **change.to_json()}


def _change_from_json(data: dict[str, Any]) -> Change:
    fields = {key: value for key, value in data.items() if key != "change"}
    match data["change"]:
        case "widen":
            return WidenSpace.from_json(fields)
        case "insert":
            return InsertBlock(**fields)
        case "first":
            return FirstBlock.from_json(fields)
        case "module":
            return InsertModule(**fields)
        case "head":
            return AddHead(**fields)
        case other:
            raise ValueError(f"unknown change {other!r} in an edit")
