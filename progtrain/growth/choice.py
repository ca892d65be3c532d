"""Which of the options that fit is the best."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from progtrain.contracts import Operator
from progtrain.errors import GrowthError
from progtrain.growth.grow import Grown, Host
from progtrain.growth.identity import silence_newborn
from progtrain.growth.widen_space import Slab
from progtrain.objective import cross_entropy


@dataclass(frozen=True)
class Candidate:
    """An option tried on a copy."""

    name: str
    operator: Operator
    grown: Grown
    params: int  # of the grown network
    flops: float  # of one training sample of the grown network
    cost: float  # FLOPs of choosing its values and of the checks


class Choice(Protocol):
    """Picks one candidate."""

    @property
    def word(self) -> str: ...
    @property
    def passes(self) -> float: ...  # of the probe batch, forward and backward, for each candidate

    def best(self, host: Host, candidates: Sequence[Candidate]) -> Candidate: ...


@dataclass(frozen=True)
class Largest:
    """The one that adds most parameters; the first declared among equals."""

    word, passes = "largest", 0.0

    def best(self, host: Host, candidates: Sequence[Candidate]) -> Candidate:
        return max(candidates, key=lambda c: c.params)


@dataclass(frozen=True)
class Steepest:
    """The one with the best expected value per parameter.

    Expected value is what the first gradient step can gain, to first order: with what is new
    silenced, the squared norm of the loss's gradient with respect to it (the criterion of GradMax,
    arXiv 2201.05125, and Firefly, arXiv 2102.08574), on the probe batch, over its parameters.
    """

    word, passes = "steepest", 1.0

    def best(self, host: Host, candidates: Sequence[Candidate]) -> Candidate:
        return max(candidates, key=lambda c: expected_gain(c.grown))


def expected_gain(grown: Grown) -> float:
    """‖∂loss/∂new‖² over the number of new parameters, at silenced new parts.

    0 for a block that cannot be silenced: it is taken where nothing else fits.
    """
    trial = replace(grown, model=copy.deepcopy(grown.model))
    try:
        silence_newborn(trial)
    except GrowthError:
        return 0.0
    trial.model.zero_grad()
    trial.model.eval()
    parameters = dict(trial.model.named_parameters())
    probe = grown.host.probe
    with torch.enable_grad():
        loss = cross_entropy(trial.model(probe.x), probe.y)
        loss.backward()
    new = (*grown.edit.blocks(), *grown.edit.inserted())
    prefixes = tuple(f"{block}." for block in new)
    slabs = [*grown.edit.slabs(), *(Slab(n) for n in parameters if n.startswith(prefixes))]
    gain, count = 0.0, 0
    for name, parameter in parameters.items():
        grad = parameter.grad
        masks = [slab.mask(parameter) for slab in slabs if slab.tensor == name]
        if masks and grad is not None:
            new = torch.stack(masks).any(0)
            gain += float(grad[new].square().sum())
            count += int(new.sum())
    return gain / max(count, 1)
