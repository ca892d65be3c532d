"""States to go back to, for `nonfinite.policy=rollback`.

Two are kept, so that one is at least `nonfinite.back` old. They are copies, and part of a
checkpoint: a resumed run has the same ones.
"""

from __future__ import annotations

import copy

from progtrain.growth.rollback import Before, grown_since, shifted
from progtrain.run import Event, Run
from progtrain.setup import Setup
from progtrain.transfer.teachers import forget

ANCHORS = 2


def anchor(run: Run) -> None:
    """Keep the state of now; controls are lifted."""
    model, optimizer, average = copy.deepcopy((run.model, run.optimizer, run.average))
    optimizer.zero_grad()
    states = {name: optimizer.state_of(name) for name in optimizer.parameters}
    now, events = run.clock.now, tuple(run.events)
    sizes = (run.params, run.flops, now, run.clock.account)
    kept = Before(model, average, optimizer, states, events, *sizes)
    run.anchors = [*run.anchors, kept][-ANCHORS:]


def go_back(run: Run, setup: Setup, why: str) -> list[Event]:
    """Put the oldest anchor's state back; the growths that this undoes. Controls are lifted.

    The clock stays, so training goes on with data that it has not seen since the anchor.
    """
    kept, now = run.anchors[0], run.clock.now
    later = run.events[len(kept.events) :]
    run.model, run.optimizer, run.average = copy.deepcopy(
        (kept.model, kept.optimizer, kept.average)
    )
    run.params, run.flops = kept.params, kept.flops
    run.clock.account = run.clock.account.given_up(kept.account)
    run.events = [shifted(event, kept.moment, now) for event in kept.events]
    run.events += [grown_since(event, why, now) for event in later]
    for index in [index for index in run.ways_back if index >= len(kept.events)]:
        del run.ways_back[index]
    forget(run, len(kept.events))
    if run.recent is not None:
        run.recent.forget(kept.moment.step, now.step)
    run.anchors = [kept]
    setup.engine.place(run.model)
    run.model.train()
    lost = now.flops - kept.moment.flops
    text = f"{why} Back to the state of step {kept.moment.step:,}; {lost:.3g} FLOPs are given up"
    setup.reporter.found(run, "rollback", text, None)
    return run.events[len(kept.events) :]
