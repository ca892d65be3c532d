"""Several torch optimizers used as one, with state kept by parameter name.

torch keys state by index, accepts moments of another shape and has no word for what is in no
optimizer at all. Here state goes in and out by name, and a set that misses a parameter cannot be
built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.errors import ConfigError, did_you_mean, require
from progtrain.growth.tensors import matching
from progtrain.optimizers.sliced_adamw import SlicedAdamW, in_order_of

_NAMED = 8  # parameters in a message

State = dict[str, Tensor]
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Own:
    """What the parameters that `match` names have of their own; of two groups the first counts."""

    match: str  # patterns of parameters: head.* | *.bias
    lr: float = 1.0  # factor on the learning rate
    weight_decay: float | None = None  # of all that is matched; null: as of the others


def own(groups: Mapping[str, Any]) -> dict[str, Own]:
    """The setting `groups` of an optimizer: each by its name; raises `SettingError`."""
    made: dict[str, Own] = {}
    known = [each.name for each in fields(Own)]
    for name, given in groups.items():
        if given is None:  # taken away again
            continue
        place = f"groups.{name}"
        wrong = sorted(set(given) - set(known)) if isinstance(given, Mapping) else [str(given)]
        hint = did_you_mean(wrong[0], known).strip() if wrong else ""
        require(not wrong, place, given, "match with lr, weight_decay or both", hint)
        match = given.get("match")
        good = isinstance(match, str) and bool(match.strip())
        require(good, f"{place}.match", match, "patterns of parameters", "Try head.* or *.bias.")
        entry = Own(**given)
        good = _number(entry.lr) and 0 <= entry.lr < 1e6
        require(good, f"{place}.lr", entry.lr, "a factor >= 0", "0.1 is a tenth of optimizer.lr.")
        decay = entry.weight_decay
        good = decay is None or (_number(decay) and 0 <= decay < 1)
        require(good, f"{place}.weight_decay", decay, "in [0, 1), or null")
        made[name] = entry
    return made


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


@dataclass(frozen=True)
class OptimizerSet:
    """Optimizers over disjoint parameters that together cover a network."""

    optimizers: tuple[torch.optim.Optimizer, ...]
    parameters: Mapping[str, nn.Parameter]

    def __post_init__(self) -> None:
        held = [id(p) for group in self.groups() for p in group["params"]]
        wanted = {id(p): name for name, p in self.parameters.items()}
        missing = [name for key, name in wanted.items() if key not in held]
        assert not missing, f"parameters in no optimizer: {missing}"
        assert len(held) == len(set(held)) == len(wanted), "a parameter is in two groups"
        for group in self.groups():
            group.setdefault("base_lr", group["lr"])

    def groups(self) -> Iterable[dict[str, Any]]:
        for optimizer in self.optimizers:
            yield from optimizer.param_groups

    def grouped(self, groups: Mapping[str, Any]) -> OptimizerSet:
        """The same after the parameters that `groups` name have got groups of their own."""
        entries = own(groups)
        chosen: dict[int, str] = {}
        for name, entry in entries.items():
            for parameter in matching(self.parameters, entry.match):
                chosen.setdefault(id(self.parameters[parameter]), name)
        for optimizer in self.optimizers if chosen else ():
            optimizer.param_groups = [
                part for group in optimizer.param_groups for part in _parted(group, chosen, entries)
            ]
        return self

    def divide(self, births: Mapping[str, int]) -> None:
        """Give the parameters of each growth groups of their own, by the growth's index.

        `births` names the parameters that came with a growth; all others are the host's, -1.
        """
        index = {id(self.parameters[name]): event for name, event in births.items()}
        for optimizer in self.optimizers:
            divided: list[dict[str, Any]] = []
            for group in optimizer.param_groups:
                by_event: dict[int, list[nn.Parameter]] = {}
                for parameter in group["params"]:
                    by_event.setdefault(index.get(id(parameter), -1), []).append(parameter)
                divided += [
                    {**group, "params": held, "event": event} for event, held in by_event.items()
                ]
            optimizer.param_groups = divided

    def set_multiplier(self, multiplier: float, of_event: Mapping[int, float]) -> None:
        """Every group's learning rate is its base rate times this and its growth's factor."""
        for group in self.groups():
            factor = of_event.get(group.get("event", -1), 1.0)
            group["lr"] = group["base_lr"] * multiplier * factor

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def settle(self, largest: Callable[[Tensor], Tensor]) -> None:
        """Let go what differs no more between the entries of a tensor (optimizers/sliced_adamw.py).

        `largest` is over all processes that hold parts of the tensors. Waits for the device.
        """
        for optimizer in self.optimizers:
            if isinstance(optimizer, SlicedAdamW):
                optimizer.settle(largest)

    def over(self, parts: Mapping[str, nn.Parameter]) -> OptimizerSet:
        """The same groups of `parts`, which stand for the parameters by name; state that an
        optimizer has begun with is left behind."""
        part = {id(parameter): parts[name] for name, parameter in self.parameters.items()}
        for optimizer in self.optimizers:
            optimizer.state.clear()
        for group in self.groups():
            group["params"] = [part[id(parameter)] for parameter in group["params"]]
        return OptimizerSet(self.optimizers, parts)

    def state_of(self, name: str) -> State:
        """The tensors an optimizer keeps for a parameter; empty before its first step."""
        parameter = self.parameters[name]
        for optimizer in self.optimizers:
            if parameter in optimizer.state:
                state = optimizer.state[parameter]
                return {key: value for key, value in state.items() if isinstance(value, Tensor)}
        return {}

    def load(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Put state back; every tensor must be a scalar or have the parameter's shape."""
        parameter = self.parameters[name]
        for key, tensor in state.items():
            assert tensor.ndim == 0 or tensor.shape == parameter.shape, (name, key, tensor.shape)
        state = {k: in_order_of(parameter, t) if t.ndim else t for k, t in state.items()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(parameter is p for p in group["params"]):
                    counts = group.get("fused") or group.get("capturable")
                    place = parameter.device if counts else None  # fused ones count on the device
                    optimizer.state[parameter] = {
                        key: t.to(place) if place and t.ndim == 0 else t for key, t in state.items()
                    }


def _parted(
    group: dict[str, Any], chosen: Mapping[int, str], entries: Mapping[str, Own]
) -> list[dict[str, Any]]:
    """A group as those that its parameters are in, each by its name."""
    by_name: dict[str, list[nn.Parameter]] = {}
    for parameter in group["params"]:
        by_name.setdefault(chosen.get(id(parameter), ""), []).append(parameter)
    parts: list[dict[str, Any]] = []
    for name, held in by_name.items():
        part = {**group, "params": held}
        if name:
            entry = entries[name]
            part |= {"base_lr": group["base_lr"] * entry.lr, "pattern": name}
            part |= {} if entry.weight_decay is None else {"weight_decay": entry.weight_decay}
        parts.append(part)
    return parts


def check_groups(groups: Mapping[str, Any], networks: Iterable[Iterable[str]]) -> None:
    """Raise `ConfigError` for a group that names no parameter of any network of the plan."""
    names = list(dict.fromkeys(name for network in networks for name in network))
    for name, entry in own(groups).items():
        if not matching(names, entry.match):
            raise ConfigError(
                f"optimizer.groups.{name}.match={entry.match!r} names no parameter of this run;"
                f" there are {', '.join(names[:_NAMED])}, … A * stands for anything, as in head.*."
            )


def split_decay(
    parameters: Mapping[str, nn.Parameter], weight_decay: float
) -> list[dict[str, object]]:
    """Two groups: matrices and kernels decay, biases and norms (one dimension) do not."""
    decays = [p for p in parameters.values() if p.ndim > 1]
    rest = [p for p in parameters.values() if p.ndim <= 1]
    groups: list[dict[str, object]] = []
    if decays:
        groups.append({"params": decays, "weight_decay": weight_decay})
    if rest:
        groups.append({"params": rest, "weight_decay": 0.0})
    return groups
