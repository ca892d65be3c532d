"""Several torch optimizers used as one, with state kept by parameter name.

torch keys state by index, accepts moments of another shape and has no word for what is in no
optimizer at all. Here state goes in and out by name, and a set that misses a parameter cannot be
built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


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
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(parameter is p for p in group["params"]):
                    counts = group.get("fused") or group.get("capturable")
                    place = parameter.device if counts else None  # fused ones count on the device
                    optimizer.state[parameter] = {
                        key: t.to(place) if place and t.ndim == 0 else t for key, t in state.items()
                    }


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
