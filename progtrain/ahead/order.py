"""What a run will have to compile: later phases of its living growth, and its next network.

Networks are on the meta device. Which one comes next is what the growth policy would grow now; one
that chooses by gradients (growth/choice=steepest) may choose another when it is time. Of a trial
all candidates are taken, as all of them train.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from progtrain.contracts import Warmup
from progtrain.curriculum.seen import shaped
from progtrain.errors import GrowthError, NothingToGrowError
from progtrain.flops import on_meta
from progtrain.growth.declared import pass_over
from progtrain.growth.freezing import frozen_now
from progtrain.growth.heads import train_every_head
from progtrain.growth.life import lengths
from progtrain.growth.plan import Ahead, by_shape, with_values
from progtrain.growth.remedies import increment, smaller
from progtrain.hardware.engine import Settings
from progtrain.hardware.shards import plain
from progtrain.planning.counted import without_values
from progtrain.planning.rehearse import undisturbed
from progtrain.run import Event, Phase, Run, Stage
from progtrain.setup import Setup

Found = tuple[nn.Module, Sequence[Event]]  # a network, and the growths that made it


@dataclass(frozen=True)
class Like:
    """What a graph depends on of a tensor."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    learns: bool  # whether a gradient passes to it

    @staticmethod
    def of(tensor: Tensor) -> Like:
        return Like(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.requires_grad)

    def made(self, device: torch.device) -> Tensor:
        """Such a tensor, of zeros; an expanded one repeats its numbers."""
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        zeros = torch.zeros(max(0, 1 + last), dtype=self.dtype, device=device)
        return zeros.as_strided(self.shape, self.stride).requires_grad_(self.learns)


@dataclass(frozen=True)
class Look:
    """A network as it trains for a while."""

    model: nn.Module  # on the meta device
    events: tuple[Event, ...]
    frozen: tuple[str, ...]  # patterns of parameters


@dataclass(frozen=True)
class Order:
    """What is to be compiled, and for what kind of training."""

    looks: tuple[Look, ...]
    x: Like  # a batch of one forward pass
    warmup: Warmup
    settings: Settings
    device: torch.device
    replicated: bool  # by DDP, under which torch cuts large graphs


def order(run: Run, setup: Setup) -> Order:
    """What `run` will need next; its network is without controls, and nothing changes."""
    engine = setup.engine
    with undisturbed(setup):
        coming = _coming(run, setup) if run.grown_out is None else []
    found = [*_left(run, setup), *coming]
    frozen = frozen_now(run, setup.train)
    looks = tuple(Look(model, tuple(events), frozen) for model, events in found)
    threads = torch.get_num_threads()  # code for a CPU depends on it
    settings = replace(engine.settings, threads=threads)
    replicated = engine.group.world > 1 and engine.shards is None
    device = run.probe.x.to(engine.device).device  # with its number
    return Order(looks, _batch(run, setup), setup.warmup, settings, device, replicated)


def _empty(run: Run, setup: Setup) -> Run:
    return without_values(replace(run, model=plain(run.model), average=None), setup)


def _batch(run: Run, setup: Setup) -> Like:
    """A batch like those of the coming step."""
    share = setup.engine.group.share(run.batch_size // run.accumulate)
    shape, kind = (share.stop - share.start, *run.probe.x.shape[1:]), run.probe.x.dtype
    return Like.of(shaped(torch.empty(shape, dtype=kind, device="meta"), run.view))


def _left(run: Run, setup: Setup) -> Iterator[Found]:
    """The network of now in the phases of its newest growth that are still to come."""
    phase = run.events[-1].phase if run.events else Phase.INTEGRATED
    phase = Phase.WARMUP if phase is Phase.HOLD else phase
    phases = _phases(setup, run.events[-1]) if run.events else []
    if phase in phases[:-1]:
        model = _empty(run, setup).model
        for later in phases[phases.index(phase) + 1 :]:
            yield model, _in_phase(run.events, later)


def _phases(setup: Setup, event: Event) -> list[Phase]:
    """Those of a growth's life that differ in what is computed."""
    lasting = lengths(setup, event)
    return [*(p for p in (Phase.ISOLATE, Phase.WARMUP) if p in lasting), Phase.INTEGRATED]


def _in_phase(events: Sequence[Event], phase: Phase) -> list[Event]:
    return [*events[:-1], replace(events[-1], phase=phase)]


def _coming(run: Run, setup: Setup) -> list[Found]:
    """The next network in every phase of its growth: by its shapes; where a policy, an operator or
    the network looks at values, by growing a copy."""
    try:
        return list(_upcoming(_empty(run, setup), setup, by_shape))
    except (GrowthError, NotImplementedError, RuntimeError) as error:
        if setup.engine.group.world > 1:
            told = "values decide, and all processes would have to look at them"
            raise GrowthError(told) from error
        model, events, memory = copy.deepcopy(run.model), list(run.events), dict(run.memory)
        ahead = replace(run, model=model, events=events, memory=memory)
        return list(_upcoming(ahead, setup, with_values))


def _upcoming(run: Run, setup: Setup, grown_by: Ahead) -> Iterator[Found]:
    """What `run` grows next; its memory is used up."""
    stage = setup.growth.upcoming(run)
    while isinstance(stage, Stage):
        try:
            found = list(_grown(run, setup, stage, grown_by))
        except NothingToGrowError as error:
            pass_over(run, stage, error)
            stage = setup.growth.upcoming(run)
            continue
        for model, events in found:
            for phase in _phases(setup, events[-1]):
                yield model, _in_phase(events, phase)
        return


def _grown(run: Run, setup: Setup, stage: Stage, grown_by: Ahead) -> Iterator[Found]:
    """The network by that stage, or by each of its candidates that can grow."""
    failed: GrowthError | None = None
    for each in stage.candidates.values() or [stage]:
        each = replace(each, operator=smaller(each.operator, increment(run)))
        try:
            grown, after = grown_by(run, setup, each)
        except GrowthError as error:
            failed = failed or error
            continue
        if setup.train.heads == "all":
            train_every_head(grown.model)
        yield on_meta(grown.model), _events(run, after, each)
    if failed is not None and not stage.candidates:
        raise failed


def _events(run: Run, after: Run, stage: Stage) -> list[Event]:
    """The run's events once `stage` has grown, with what ramps must know of it; growths before it
    are over by then, but for policies that overlap them."""
    new = after.events[-1]
    edit = new.edit
    event = replace(
        new,
        slabs=edit.slabs(),
        blocks=edit.blocks(),
        inserted=edit.inserted(),
        heads=edit.heads(),
        consolidation=stage.consolidation,
    )
    before = [replace(e, phase=Phase.INTEGRATED) if e.alive else e for e in run.events]
    return [*(each.moved(edit) for each in before), event]
