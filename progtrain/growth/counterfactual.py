"""What the network would be without a growth: evaluated with all that is new switched off.

New blocks become their input, new modules give nothing, and what reads new units reads zeros: the
gates of the ramps at alpha 0. That is causal, which a metric before and after a growth is not.
"""

from __future__ import annotations

from progtrain.growth.gates import switched_off
from progtrain.run import Event, Run
from progtrain.setup import Setup
from progtrain.steps import evaluate


def contribution(run: Run, setup: Setup, event: Event, whole: float) -> float:
    """How much better the primary metric is with the growth than without it.

    `whole` is the metric of the whole network. Where an operator has shared the host's weights out
    (`Event.shares`) what is left without the new part is no network of before, and this says more
    than the growth has brought.
    """
    with switched_off(run.model, event):
        without = evaluate(run, setup, setup.batches.sets.validation, "val")[run.metric]
    return whole - without if run.mode == "max" else without - whole
