"""Grow a copy of a network: shapes by the edit, values by the operator.

The host is never touched, so undoing a growth is forgetting the copy.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from progtrain.contracts import Operator, OptimizerRecipe, StatePolicy
from progtrain.errors import GrowthError
from progtrain.growth.edits import Edit
from progtrain.hardware.shards import InShardsError, is_sharded, plain
from progtrain.optimizers.group import OptimizerSet
from progtrain.run import Probe, Run, Template, no_template


@dataclass(frozen=True)
class Host:
    """The network as it is before a growth, with a batch to look at it by."""

    model: nn.Module
    probe: Probe
    template: Template = no_template  # where the first block of an empty stack comes from
    stage: str = ""  # whose growth it is

    @staticmethod
    def of(run: Run) -> Host:
        """The run's network, as plain modules: compiled ones hide calls from those who look.

        Raises `InShardsError` where its values lie in shards.
        """
        if is_sharded(run.model):
            raise InShardsError
        return Host(uncompiled(run.model), run.probe, run.template)


def uncompiled(model: nn.Module) -> nn.Module:
    """The network itself, or a copy where torch.compile stands in its calls; copying drops it. Of
    one that is sharded its shapes, on the meta device."""
    model = plain(model)
    compiled = any(getattr(m, "_compiled_call_impl", None) for m in model.modules())
    return copy.deepcopy(model) if compiled else model


@dataclass(frozen=True)
class Grown:
    """A grown copy of the host."""

    model: nn.Module
    edit: Edit
    host: Host
    # by space: the unit that each unit equals; noted by operators that copy units and share what
    # reads them out, for those who must know what follows from it
    sources: dict[str, Tensor] = field(default_factory=lambda: dict[str, Tensor]())

    @property
    def x(self) -> Tensor:
        return self.host.probe.x


@contextmanager
def running(stage: str) -> Generator[None]:
    """Around all that runs a grown network: where it does not run, `GrowthError` says so."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise GrowthError(
            f"Stage {stage}: the grown network does not run: {error}. The network is as it was."
        ) from error


def grow(host: Host, operator: Operator, seed: int) -> Grown:
    """Propose, copy, apply, fill. The same host, operator and seed give the same network."""
    edit = operator.propose(host).settled(host.model)
    model = copy.deepcopy(host.model)
    edit.apply(model, host.template)
    grown = Grown(model, edit, host)
    operator.fill(grown, torch.Generator().manual_seed(seed))
    return grown


def carry_optimizer(
    old: OptimizerSet,
    new: OptimizerSet,
    grown: Grown,
    sliced: frozenset[str],
    recipe: OptimizerRecipe,
    policy: StatePolicy,
) -> None:
    """Put what the old optimizer remembers into the new one, as the policy says."""
    for name, parameter in old.parameters.items():
        state, target = old.state_of(name), grown.edit.rename(name)
        if target in sliced:
            state = recipe.per_entry(name, parameter, state)
        carried = policy.carried(grown, name, parameter, state)
        if target in sliced and carried:
            old_entries = grown.edit.carry(name, torch.ones_like(parameter, dtype=torch.bool))
            carried = recipe.begun(carried, ~old_entries)
        new.load(target, carried)
