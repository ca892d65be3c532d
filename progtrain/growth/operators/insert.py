"""What all inserting operators share: which modules they join, and what is checked before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import GrowthError, NothingToGrowError, did_you_mean, require
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.insert_module import InsertModule
from progtrain.growth.inserted import PLACES, Inserted, silence
from progtrain.growth.newborn import calibrate, evaluate, reinitialise
from progtrain.growth.sites import Site, sites
from progtrain.growth.stacks import stacks
from progtrain.growth.tensors import matching

_NAMED = 12  # modules that an error lists


def check_insert(modules: str, place: str) -> None:
    require(bool(modules.strip()), "modules", modules, "auto, or names of modules (* and | work)")
    require(place in PLACES, "place", place, "one of " + ", ".join(PLACES))


def inserting(
    host: Host, modules: str, place: str, kind: str, sizes: Callable[[Site], dict[str, Any]]
) -> Edit:
    """One new module at every chosen site, inner ones first, so that every name still holds."""
    chosen = _chosen(host, modules, place)
    chosen.sort(key=lambda site: -site.module.count("."))
    edit = Edit(tuple(InsertModule(s.module, place, kind, _made(s, place, sizes)) for s in chosen))
    _try(host, edit)
    return edit


def _made(site: Site, place: str, sizes: Callable[[Site], dict[str, Any]]) -> dict[str, Any]:
    into, onto = site.features(place)
    return {"into": into, "onto": onto, "layer": site.layer, **sizes(site)}


def fill(grown: Grown, silent: bool, generator: torch.Generator) -> None:
    """Fresh values, the last layer zero if `silent`; statistics of new norms from the probe."""
    for name in grown.edit.inserted():
        module = grown.model.get_submodule(name)
        reinitialise(module, generator)
        if silent:
            silence(module)
    calibrate(grown.model, (), grown.edit.inserted(), grown.x)


def _chosen(host: Host, modules: str, place: str) -> list[Site]:
    every = sites(host, place)
    able = [site for site in every if not site.refused]
    if modules == "auto":
        chosen = _usual(host, able)
    else:
        names = matching([site.module for site in every], modules)
        chosen = [site for site in every if site.module in names]
    found = [site for site in chosen if not site.refused]
    if found:
        return found
    if chosen:
        reasons = "; ".join(f"{site.module}: {site.refused}" for site in chosen[:3])
        raise GrowthError(f"insert.modules={modules} names nothing that can be joined ({reasons}).")
    if modules == "auto":
        raise NothingToGrowError(
            f"insert finds no module of this {type(host.model).__name__} that keeps its input's"
            f" shape. Name others by insert.modules: {_listed(able)}."
        )
    near = did_you_mean(modules, [site.module for site in able])
    raise GrowthError(
        f"insert.modules={modules} matches no module of the {type(host.model).__name__}.{near}"
        f" Modules: {_listed(able)}."
    )


def _usual(host: Host, able: list[Site]) -> list[Site]:
    """Blocks of stacks; else the outermost modules that keep their shape."""
    inside = [_uncut(host.model, site, able) for site in able if site.module in _blocks(host)]
    keeping = [site for site in able if site.keeps and _has_weights(host.model, site.module)]
    parts = [s for s in keeping if next(host.model.get_submodule(s.module).children(), None)]
    return inside or _outermost(parts) or _outermost(keeping)


def _blocks(host: Host) -> set[str]:
    names: set[str] = set()
    for stack in stacks(host.model, host.probe.x):
        children = [name for name, _ in host.model.get_submodule(stack.name).named_children()]
        for child in children[stack.first : stack.first + stack.length]:
            names.add(f"{stack.name}.{child}" if stack.name else child)
    return names


def _uncut(model: nn.Module, block: Site, able: list[Site]) -> Site:
    """The block, or its last layer if an activation behind it lets nothing negative pass.

    What is added behind such an activation would make the next block's input negative, and its
    activation could then never be the identity: the stack could not be deepened exactly.
    """
    layers = set(_layers(model, block.module)) if block.cut else set[str]()
    within = [site for site in able if site.module in layers and site.after == block.after]
    return max(within, key=lambda site: site.turn, default=block)


def _layers(model: nn.Module, name: str) -> Iterator[str]:
    """Modules with weights and no parts, inside `name`; one that something has joined is one."""
    module = model.get_submodule(name)
    children = [] if isinstance(module, Inserted) else [n for n, _ in module.named_children()]
    if not children and _has_weights(model, name):
        yield name
    for child in children:
        yield from _layers(model, f"{name}.{child}")


def _outermost(found: Iterable[Site]) -> list[Site]:
    outer: list[Site] = []
    for site in found:
        if not any(site.module.startswith(f"{other.module}.") for other in outer):
            outer.append(site)
    return outer


def _has_weights(model: nn.Module, name: str) -> bool:
    return next(model.get_submodule(name).parameters(), None) is not None


def _listed(able: list[Site]) -> str:
    names = [site.module for site in able]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (", ".join(names[:_NAMED]) + more) or "none can be joined"


class _Seen(nn.Module):
    """Stands in for a new module and notes that it is called; no hook could, as hooks switch off
    torch's fast paths, which compute with a layer's weights and never call it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.called = dim, False

    def forward(self, x: Tensor) -> Tensor:
        self.called = True
        return torch.zeros_like(x.narrow(self.dim, 0, 1))


def _try(host: Host, edit: Edit) -> None:
    """Run a wrapped copy: the host's code must still work, and call every new module."""
    model = copy.deepcopy(host.model)
    edit.apply(model)
    seen: dict[str, _Seen] = {}
    for change, name in zip(edit.changes, edit.inserted(), strict=True):
        assert isinstance(change, InsertModule)
        holder = model.get_submodule(name.rpartition(".")[0])
        assert isinstance(holder, Inserted)
        seen[change.module] = _Seen(-1 if change.sizes["layer"] == "linear" else 1)
        holder.inserted = seen[change.module]
    try:
        evaluate(model, host.probe.x)
    except Exception as error:
        raise GrowthError(
            f"The network does not run with modules at {', '.join(list(seen)[:3])}: {error}. Its"
            " code treats them in a way of its own; choose others by insert.modules."
        ) from error
    idle = [name for name, module in seen.items() if not module.called]
    if idle:
        raise GrowthError(
            f"The network computes with the weights of {', '.join(idle[:3])} and does not call it,"
            " so a module there would never run. Choose the module around it by insert.modules."
        )
