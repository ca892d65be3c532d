"""torch's optimizers for a network that has grown: the same groups, and state by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from progtrain.contracts import StatePolicy
from progtrain.errors import ConfigError, GrowthError
from progtrain.growth.grow import Grown
from progtrain.growth.transaction import sliced_tensors
from progtrain.optimizers.group import State
from progtrain.optimizers.grown_adam import GrownAdam, GrownAdamW, aged
from progtrain.optimizers.torch_optimizer import TorchOptimizer

_KINDS: dict[type, type[GrownAdam]] = {torch.optim.Adam: GrownAdam, torch.optim.AdamW: GrownAdamW}
Place = tuple[int, int]  # number of the optimizer, and of the group in it


def grown_optimizers(
    model: nn.Module, optimizers: Sequence[Optimizer], grown: Grown, policy: StatePolicy
) -> list[Optimizer]:
    """Optimizers over the grown network in place of `optimizers`, which stay as they are.

    `model` is the network that they step. Groups, their settings, hooks and order are the same;
    what is new as a whole is added to the group that `_joins` finds.
    """
    edit, parameters = grown.edit, dict(grown.model.named_parameters())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    places: dict[str, Place] = {}
    for number, optimizer in enumerate(optimizers):
        for index, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                if id(parameter) not in names:
                    raise ConfigError(
                        f"{type(optimizer).__name__} holds a parameter that is not the model's."
                        " Give the optimizer of this very model."
                    )
                places[edit.rename(names[id(parameter)])] = (number, index)
    before = {edit.rename(name) for name in names.values()}
    for name in (name for name in parameters if name not in before):
        if (place := _joins(name, parameters, places)) is not None:
            places[name] = place
    return [
        _remade(number, optimizer, names, parameters, places, grown, policy)
        for number, optimizer in enumerate(optimizers)
    ]


def _joins(
    name: str, parameters: Mapping[str, nn.Parameter], places: Mapping[str, Place]
) -> Place | None:
    """The group of a new parameter: that of its counterpart, whose name differs in one place; else
    of the nearest before it with as many dimensions, or behind it. None: it does not train."""
    new = parameters[name]
    if not new.requires_grad:
        return None
    words, order = name.split("."), list(parameters)
    alike = [n for n in order if n in places and parameters[n].ndim == new.ndim]
    for other in alike:
        theirs = other.split(".")
        same = len(theirs) == len(words)
        if same and sum(a != b for a, b in zip(words, theirs, strict=True)) == 1:
            return places[other]
    at = order.index(name)
    near = sorted(alike, key=lambda n: (order.index(n) > at, abs(order.index(n) - at)))
    held = near or [n for n in order if n in places]
    return places[held[0]] if held else None


def _remade(
    number: int,
    optimizer: Optimizer,
    names: Mapping[int, str],
    parameters: Mapping[str, nn.Parameter],
    places: Mapping[str, Place],
    grown: Grown,
    policy: StatePolicy,
) -> Optimizer:
    """One optimizer over its parameters of now."""
    kind = _KINDS.get(type(optimizer), type(optimizer))
    groups: list[dict[str, Any]] = []
    state: dict[Tensor, Any] = defaultdict(dict)
    for index, group in enumerate(optimizer.param_groups):
        old = [names[id(parameter)] for parameter in group["params"]]
        kept = [grown.edit.rename(name) for name in old]
        joined = [n for n, place in places.items() if place == (number, index) and n not in kept]
        groups.append({**group, "params": [parameters[name] for name in (*kept, *joined)]})
        for name, parameter in zip(old, group["params"], strict=True):
            if optimizer.state.get(parameter):
                exact = issubclass(kind, GrownAdam)
                betas = group["betas"] if exact else None
                told = _state(optimizer, name, parameter, betas, grown, policy)
                state[parameters[grown.edit.rename(name)]] = told
    new = kind.__new__(kind)
    new.__setstate__({**dict(_attributes(optimizer)), "param_groups": groups, "state": state})
    return new


def _attributes(optimizer: Optimizer) -> Iterator[tuple[str, Any]]:
    """What else an optimizer has; not the `step` that a scheduler has wrapped for itself."""
    for name, value in vars(optimizer).items():
        if name != "step":
            yield name, value.copy() if "hooks" in name else value


def _state(
    optimizer: Optimizer,
    name: str,
    parameter: nn.Parameter,
    betas: tuple[float, float] | None,
    grown: Grown,
    policy: StatePolicy,
) -> dict[str, Any]:
    """What the optimizer remembers of a tensor, after the tensor has grown."""
    held = optimizer.state[parameter]
    tensors: State = {k: v.clone() for k, v in held.items() if isinstance(v, Tensor)}
    odd = [key for key, value in tensors.items() if value.ndim and value.shape != parameter.shape]
    if odd or isinstance(optimizer, torch.optim.LBFGS):
        raise GrowthError(
            f"{type(optimizer).__name__} keeps state that has not the shape of the parameters"
            f" ({', '.join(odd) or 'of all at once'}), so it cannot grow. Use AdamW, SGD or Muon."
        )
    mixed = grown.edit.rename(name) in sliced_tensors([grown.edit])
    if mixed and betas is not None:
        aged(tensors, parameter, betas)
    carried = policy.carried(grown, name, parameter, tensors)
    if mixed and betas is None and carried:
        old_entries = grown.edit.carry(name, torch.ones_like(parameter, dtype=torch.bool))
        carried = TorchOptimizer().begun(carried, ~old_entries)
    return {**{k: v for k, v in held.items() if not isinstance(v, Tensor)}, **carried}
