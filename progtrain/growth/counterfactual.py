"""What the network would be without a growth: evaluated with all that is new switched off.

New blocks become their input, new modules give nothing, and what reads new units reads zeros: the
gates of the ramps at alpha 0. That is causal, which a metric before and after a growth is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from torch import nn

from progtrain.evaluation import evaluate_network
from progtrain.flops import forward_flops
from progtrain.growth.edits import Edit
from progtrain.growth.first_block import FirstBlock
from progtrain.growth.gates import switched_off
from progtrain.growth.grow import uncompiled
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.insert_module import InsertModule
from progtrain.growth.widen_space import Slab, WidenSpace
from progtrain.run import Event, Run
from progtrain.setup import Setup

Names = tuple[str, ...]


def contribution(run: Run, setup: Setup, event: Event, whole: float) -> float:
    """How much better the primary metric is with the growth than without it.

    `whole` is the metric of the whole network. Where an operator has shared the host's weights out
    (`Event.shares`) what is left without the new part is no network of before, and this says more
    than the growth has brought.
    """
    model = _watched(run)
    with switched_off(model, event):
        without = measured(run, setup)
    return whole - without if run.mode == "max" else without - whole


def measured(run: Run, setup: Setup) -> float:
    """The primary metric of the network as it is now."""
    prefix = "val/ema" if run.metric.startswith("val/ema/") else "val"
    split = setup.batches.sets.validation
    return evaluate_network(_watched(run), setup, split, prefix)[run.metric]


def evaluation_flops(run: Run, setup: Setup) -> float:
    """What `measured` costs."""
    forward = forward_flops(uncompiled(_watched(run)), run.probe.x)
    return forward * len(setup.batches.sets.validation)


def parts(event: Event) -> dict[str, Event]:
    """Each space, block and module that grew, by name: the event as if it had brought that alone.

    A block or module has its name of now, a space that of the growth.
    """
    found: dict[str, Event] = {}
    for name, slabs, blocks, inserted in _pieces(event):
        known = found.get(name, replace(event, slabs=(), blocks=(), inserted=()))
        found[name] = replace(
            known,
            slabs=(*known.slabs, *slabs),
            blocks=(*known.blocks, *blocks),
            inserted=(*known.inserted, *inserted),
        )
    return {name: each for name, each in found.items() if _can_be_switched(each)}


def _pieces(event: Event) -> Iterator[tuple[str, tuple[Slab, ...], Names, Names]]:
    """(name, slabs, blocks, modules) of every change; what an event holds is in their order."""
    slabs, blocks, inserted = iter(event.slabs), iter(event.blocks), iter(event.inserted)
    for change in event.edit.changes:
        if isinstance(change, InsertBlock | FirstBlock):
            name = next(blocks, "")
            yield name, (), (name,), ()
            continue
        own = tuple(islice(slabs, len(Edit((change,)).slabs())))
        if isinstance(change, InsertModule):
            name = next(inserted, "")
            yield name, own, (), (name,)
        elif isinstance(change, WidenSpace):
            yield change.space, own, (), ()


def _can_be_switched(event: Event) -> bool:
    read = any(slab.consumer and slab.readers for slab in event.slabs)
    return bool(read or event.blocks or event.inserted)


def _watched(run: Run) -> nn.Module:
    """The network that the primary metric is of."""
    return run.average if run.metric.startswith("val/ema/") and run.average else run.model
