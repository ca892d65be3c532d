"""What else must change size when a space does, so that the same code runs.

The code of a network ties sizes to each other: `reshape(B, N, num_heads, C // num_heads)` with C
read off the input says that heads × head size is the width of the stream. Every such demand was
recorded with what its sizes were computed from; here they are solved, one unknown at a time:
first a module's attribute, then the outermost leaf that is still free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from progtrain.growth.extents import Attribute, attributes, evaluate, nodes
from progtrain.growth.trace import Demand, Graph


class DemandError(Exception):
    """The sizes that the code demands cannot all be met."""


@dataclass
class Sizes:
    """New sizes of leaves, and new values of attributes."""

    nodes: dict[int, int] = field(default_factory=lambda: dict[int, int]())
    held: dict[Attribute, int] = field(default_factory=lambda: dict[Attribute, int]())


def demands(graph: Graph) -> list[Demand]:
    """Demands that a growth could break, each once."""
    table, found = graph.table, dict[Demand, None]()
    for source, axis, where in graph.demands:
        axis = table.resolve(axis)
        if table.leaves(axis) or nodes(source, table):
            found[Demand(source, axis, where)] = None
    return list(found)


def held(graph: Graph, wanted: list[Demand]) -> dict[Attribute, int]:
    """Values that attributes have now."""
    found: dict[Attribute, int] = {}
    for source, _, _ in wanted:
        for attribute in attributes(source):
            value = getattr(graph.modules[attribute.module], attribute.name)
            found[attribute] = int(value if attribute.index < 0 else value[attribute.index])
    return found


def follow(graph: Graph, wanted: list[Demand], start: dict[int, int]) -> Sizes:
    """All sizes once the leaves in `start` have theirs; raises `DemandError`."""
    now, new = held(graph, wanted), Sizes(dict(start))
    related = _related(graph, wanted, set(start))
    for _ in range(4 * len(related) + 4):
        broken = next((d for d in related if not _holds(graph, d, new, now)), None)
        if broken is None:
            return new
        _mend(graph, broken, new, now)
    raise DemandError("the sizes that its code demands do not settle")


def _related(graph: Graph, wanted: list[Demand], moving: set[int]) -> list[Demand]:
    """Demands that are connected to the moving leaves by leaves or attributes."""
    left, found, known = list(wanted), list[Demand](), set[object](moving)
    while True:
        more = [d for d in left if known & _touches(graph, d)]
        if not more:
            return found
        for demand in more:
            known |= _touches(graph, demand)
        found += more
        left = [d for d in left if d not in more]


def _touches(graph: Graph, demand: Demand) -> set[object]:
    table = graph.table
    sides = {*table.leaves(demand.axis), *nodes(demand.source, table)}
    return {*sides, *attributes(demand.source)}


def _holds(graph: Graph, demand: Demand, new: Sizes, now: dict[Attribute, int]) -> bool:
    asked = evaluate(demand.source, graph.table, new.nodes, {**now, **new.held})
    return asked == graph.table.size(demand.axis, new.nodes)


def _mend(graph: Graph, demand: Demand, new: Sizes, now: dict[Attribute, int]) -> None:
    """Change one thing so that the demand holds."""
    for change in _changes(graph, demand, new, now):
        trial = Sizes({**new.nodes, **change.nodes}, {**new.held, **change.held})
        if _holds(graph, demand, trial, now):
            new.nodes, new.held = trial.nodes, trial.held
            return
    table = graph.table
    asked = evaluate(demand.source, table, new.nodes, {**now, **new.held})
    raise DemandError(
        f"{demand.where} in its code wants {asked} where {table.size(demand.axis, new.nodes)}"
        " would be needed"
    )


def _changes(
    graph: Graph, demand: Demand, new: Sizes, now: dict[Attribute, int]
) -> Iterator[Sizes]:
    table = graph.table
    asked = evaluate(demand.source, table, new.nodes, {**now, **new.held})
    needed = table.size(demand.axis, new.nodes)
    for attribute in attributes(demand.source):
        if attribute not in new.held:
            for value in (*_guesses(now[attribute], asked, needed), *range(1, 4 * now[attribute])):
                yield Sizes(held={attribute: value})
    free = [(node, asked, needed) for node in table.leaves(demand.axis)]
    free += [(node, needed, asked) for node in nodes(demand.source, table)]
    for node, more, less in free:
        if node not in new.nodes and not _pinned(graph, node):
            size = table.nodes[node].size
            for value in _guesses(size, less, more):
                if value >= size:  # nothing that has learnt is given up
                    yield Sizes(nodes={node: value})


def _pinned(graph: Graph, node: int) -> bool:
    return bool(graph.table.nodes[node].fixed)


def _guesses(value: int, have: int, want: int) -> Iterator[int]:
    """Values that make `have` into `want` if it is proportional to it, either way."""
    if have and value * want % have == 0:
        yield value * want // have
    if want and value * have % want == 0:
        yield value * have // want
