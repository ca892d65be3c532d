"""A run whose network lies in shards, and the same run with everything whole.

Steps and evaluations work on shards. What looks at weights as such (growth, the way back from it,
anchors) works on whole and plain networks, which every process then has for a moment: in the
memory of `Shards.home`, so that a device need not have room for one.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from progtrain.contracts import OptimizerRecipe
from progtrain.errors import GrowthError
from progtrain.growth.transaction import births, sliced_tensors
from progtrain.hardware.engine import Engine
from progtrain.hardware.shards import (
    gathered,
    is_sharded,
    learners,
    like,
    named,
    shapes,
    whole,
)
from progtrain.optimizers.group import OptimizerSet
from progtrain.run import Run
from progtrain.setup import Setup


def spread(run: Run, engine: Engine, recipe: OptimizerRecipe) -> None:
    """Put the run's network, its average and its optimizer's state into shards, where the hardware
    says so and they are not."""
    shards = engine.shards
    if shards is None or is_sharded(run.model):
        return
    states = _states(run)
    engine.replicas.forget()
    shards.forget()
    engine.place(run.model)
    shards.spread(run.model)
    if run.average is not None:
        shards.spread(run.average)
        run.average.requires_grad_(False)
    run.probe = run.probe.at(engine.device)
    run.optimizer = _optimizer(run, recipe, states)


@contextmanager
def as_whole(run: Run, setup: Setup, place: torch.device | None = None) -> Generator[None]:
    """Around what works on whole networks; they lie at `place`, or where networks are at home.

    A collective call where the run is in shards; hooks and freezes are lifted.
    """
    if not is_sharded(run.model):
        yield
        return
    engine = setup.engine
    home, place = engine.home, place or engine.home
    _gather(run, engine, setup.optimizer, place)
    engine.home = place

    def back() -> None:
        spread(run, engine, setup.optimizer)
        engine.home = home

    try:
        yield
    except GrowthError:  # the run goes on, or is stored
        back()
        raise
    back()


def _gather(run: Run, engine: Engine, recipe: OptimizerRecipe, place: torch.device) -> None:
    """Make whole what is in shards."""
    assert engine.shards is not None
    states = _states(run, place)
    engine.replicas.forget()
    run.model = gathered(run.model, place)
    if run.average is not None:
        run.average = gathered(run.average, place).requires_grad_(False)
    engine.shards.forget()
    run.probe = run.probe.at(place)
    run.optimizer = _optimizer(run, recipe, states)


def _states(run: Run, place: torch.device | None = None) -> dict[str, dict[str, Tensor]]:
    """What the optimizer remembers; what lies in shards is brought whole to `place`."""
    shape = shapes(run.model)
    return {
        name: {
            key: whole(t).reshape(shape[name]).to(place) if isinstance(t, DTensor) else t
            for key, t in run.optimizer.state_of(name).items()
        }
        for name in run.optimizer.parameters
    }


def _optimizer(
    run: Run, recipe: OptimizerRecipe, states: dict[str, dict[str, Tensor]]
) -> OptimizerSet:
    """The optimizer of the run's network as it lies now, with that state."""
    parameters, parts = named(run.model), learners(run.model)
    made = recipe.build(parameters, sliced_tensors(run.edits))
    made.divide(births(parameters, run.events))
    made = made.over(parts)
    for name, state in states.items():
        made.load(name, _lying(state, parameters[name], parts[name]))
    return made


def _lying(
    state: dict[str, Tensor], parameter: nn.Parameter, part: nn.Parameter
) -> dict[str, Tensor]:
    """State as `part` of the parameter lies; counts stay what they are."""
    return {
        key: like(tensor, part) if tensor.shape == parameter.shape and key != "step" else tensor
        for key, tensor in state.items()
    }
