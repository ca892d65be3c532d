"""A second head beside the first: the change as data, and the module that holds them."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from progtrain.growth.tensors import owner
from progtrain.growth.widen_space import Slab

FIRST = "first"  # name of the head that was alone


class Heads(nn.Module):
    """Heads over one backbone, by name; `answers` is the one whose output is the network's.

    In evaluation every head runs, so that whoever traces the network sees what all of them read;
    with `every` in training as well, because all of them learn.
    """

    every = False

    def __init__(self, heads: dict[str, nn.Module], answers: str) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)
        self.answers = answers

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.training and not self.every:
            return self.heads[self.answers](*args, **kwargs)
        return {name: head(*args, **kwargs) for name, head in self.heads.items()}[self.answers]

    def extra_repr(self) -> str:
        return f"answers={self.answers}" + ", all learn" * self.every


_known: WeakKeyDictionary[nn.Module, Heads | None] = WeakKeyDictionary()


def heads_of(model: nn.Module) -> Heads | None:
    """The heads of a network that has several; looked for once, as steps ask for them."""
    if model not in _known:
        found = (module for module in model.modules() if isinstance(module, Heads))
        _known[model] = next(found, None)
    return _known[model]


@dataclass(frozen=True)
class AddHead:
    """A copy of the head `module` joins under `name` and answers; the others rest, frozen."""

    module: str
    name: str
    wraps: bool  # the head was alone and is put into `Heads`

    @property
    def new(self) -> str:
        """The new head's name as a module."""
        return f"{self.module}.heads.{self.name}"

    def rename(self, name: str) -> str:
        if self.wraps and (name == self.module or name.startswith(f"{self.module}.")):
            return f"{self.module}.heads.{FIRST}{name[len(self.module) :]}"
        return name

    def carry(self, name: str, tensor: Tensor) -> Tensor:
        return tensor

    def apply(self, model: nn.Module) -> None:
        _known.pop(model, None)
        parent, attribute = owner(model, self.module)
        now = getattr(parent, attribute)
        heads = Heads({FIRST: now}, FIRST) if self.wraps else now
        assert isinstance(heads, Heads)
        added = copy.deepcopy(heads.heads[heads.answers])
        for parameter in heads.parameters():
            parameter.requires_grad_(False)
        heads.heads[self.name], heads.answers = added, self.name
        heads.train(now.training)
        setattr(parent, attribute, heads)

    def revert(self, model: nn.Module) -> None:
        _known.pop(model, None)
        parent, attribute = owner(model, self.module)
        heads = getattr(parent, attribute)
        del heads.heads[self.name]
        heads.answers = list(heads.heads)[-1]
        for parameter in heads.heads[heads.answers].parameters():
            parameter.requires_grad_(True)
        if self.wraps:
            setattr(parent, attribute, heads.heads[FIRST])

    def slabs(self) -> list[Slab]:
        """The operator fills the new head; a warmup that slows or blends finds nothing in it."""
        return []

    def describe(self) -> str:
        return f"+1 head {self.name} at {self.module}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
