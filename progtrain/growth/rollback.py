"""Undo a growth that has happened, exactly.

A growth swaps a grown copy in and leaves the host as it was, so the way back is to keep the host:
weights, attributes and modes are the very objects of before. Optimizer state of tensors that did
not grow goes on in the new optimizer, so it is copied here. Both cost memory for as long as the way
back is to stay open, and are part of a checkpoint.

The clock goes on: what was spent on a growth that is undone stays spent. Older growths that were
alive go on where they were when the undone one happened.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from torch import nn

from progtrain.account import Account
from progtrain.clock import Moment
from progtrain.optimizers.group import OptimizerSet, State
from progtrain.run import Event, Phase, Run


@dataclass(frozen=True)
class Before:
    """A run's network and all that belongs to it, before a growth."""

    model: nn.Module
    average: nn.Module | None
    optimizer: OptimizerSet
    states: Mapping[str, State]  # of the optimizer, copied
    events: tuple[Event, ...]
    params: int
    flops: float
    moment: Moment = field(default_factory=Moment)  # of an anchor (anchors.py)
    account: Account = field(default_factory=Account)  # as it was

    @staticmethod
    def of(run: Run) -> Before:
        states, average = copied_states(run.optimizer), copy.deepcopy(run.average)
        kept = (run.model, average, run.optimizer, states, tuple(run.events))
        return Before(*kept, run.params, run.flops, account=run.clock.account)

    def restore(self, run: Run) -> None:
        """Put everything back; what training has cost since is not given back."""
        run.model, run.optimizer, run.events = self.model, self.optimizer, list(self.events)
        run.params, run.flops, run.average = self.params, self.flops, self.average
        for name, state in self.states.items():
            run.optimizer.load(name, {key: tensor.clone() for key, tensor in state.items()})


def copied_states(optimizer: OptimizerSet) -> dict[str, State]:
    return {
        name: {key: tensor.clone() for key, tensor in optimizer.state_of(name).items()}
        for name in optimizer.parameters
    }


def undo(run: Run, event: Event, why: str) -> list[Event]:
    """Roll back `event`, and with it whatever has grown since; the events that are undone.

    `Controls` must be lifted. The undone events stay in `Run.events`, for the log and the embargo.
    """
    before, now = run.ways_back[event.index], run.clock.now
    gone = [each for each in run.events[event.index :] if each.phase is not Phase.ROLLED_BACK]
    kept = run.events[event.index :]
    before.restore(run)
    run.clock.account = run.clock.account.given_up(before.account)
    run.events = [shifted(each, event.moment, now) for each in run.events]
    run.events += [_undone(each, event, why, now) if each in gone else each for each in kept]
    for index in [index for index in run.ways_back if index >= event.index]:
        del run.ways_back[index]
    return run.events[event.index :]


def _undone(each: Event, event: Event, why: str, now: Moment) -> Event:
    """`event` carries what was lost; what grew on top of it goes for its reason."""
    first = each.index == event.index
    lost = now.flops - event.moment.flops if first else 0.0
    reason = why if first else f"it grew after {event.stage}, which was rolled back"
    return replace(grown_since(each, reason, now), lost=lost)


def grown_since(event: Event, why: str, now: Moment) -> Event:
    """An event of which the network has nothing any more."""
    if event.phase is Phase.ROLLED_BACK:
        return event
    gone = replace(event, slabs=(), blocks=(), inserted=(), heads=())
    return replace(gone, phase=Phase.ROLLED_BACK, since=now, undone=why)


def shifted(event: Event, then: Moment, now: Moment) -> Event:
    """A growth that was alive at `then` goes on at `now` where it was."""
    if not event.alive:
        return event
    moved = {
        each.name: getattr(event.since, each.name)
        + getattr(now, each.name)
        - getattr(then, each.name)
        for each in fields(Moment)
    }
    return replace(event, since=Moment(**moved))
