"""What all deepening operators share: which stacks grow, and where the blocks go."""

from __future__ import annotations

from progtrain.errors import GrowthError, did_you_mean, require
from progtrain.growth.edits import Edit, InsertBlock, matching
from progtrain.growth.grow import Host
from progtrain.growth.spaces import BlockStack, stacks


def check_deepen(add: int) -> None:
    require(1 <= add <= 10_000, "add", add, "a whole number, 1 to 10000")


def chosen_stacks(host: Host, pattern: str) -> list[BlockStack]:
    """Stacks of the host that match; `GrowthError` if none does."""
    found = stacks(host.model, host.probe.x)
    names = matching([stack.name for stack in found], pattern)
    if names:
        return [stack for stack in found if stack.name in names]
    kind = type(host.model).__name__
    if not found:
        raise GrowthError(
            f"deepen does not support this {kind}: it has no run of equal blocks that keep their"
            " input's shape (a depth of at least 1 is needed). Grow it by widen instead."
        )
    known = [stack.name for stack in found]
    raise GrowthError(
        f"deepen.stacks={pattern} matches no stack of the {kind}."
        f"{did_you_mean(pattern, known)} Stacks: {', '.join(known)}."
    )


def appended(host: Host, pattern: str, add: int) -> Edit:
    """`add` blocks behind the last one of every matching stack, copies of the old in their order:
    new layer i is old layer i mod depth."""
    return Edit(
        tuple(
            InsertBlock(stack.name, stack.first + stack.length + i, stack.first + i % stack.length)
            for stack in chosen_stacks(host, pattern)
            for i in range(add)
        )
    )
