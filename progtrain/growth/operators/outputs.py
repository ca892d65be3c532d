"""Finding a network's outputs: the classes, and the module that computes them."""

from __future__ import annotations

from progtrain.errors import GrowthError
from progtrain.growth.grow import Host
from progtrain.growth.spaces import Space, Spaces
from progtrain.growth.trace import OUTPUT
from progtrain.growth.widen_space import Role


def output_space(host: Host, every: Spaces, refusal: str = "cannot grow") -> Space:
    """The space of the outputs; `GrowthError` where no weight computes them alone."""
    found = [s for s in every.found if s.fixed == OUTPUT and s.tensors(Role.PRODUCER)]
    if not found:
        raise GrowthError(
            f"The outputs of this {type(host.model).__name__} {refusal}: no weight computes them"
            " alone (a tied head is also the embedding). Train with a head of its own"
            " (model.tied=false)."
        )
    return found[-1]


def head_of(space: Space) -> str:
    """The module that holds the weight of the outputs."""
    return space.tensors(Role.PRODUCER)[0].tensor.rpartition(".")[0]
