"""Whether a growth has paid, asked at the end of its life: `growth.keep_if`."""

from __future__ import annotations

from progtrain.account import GROWTH
from progtrain.evaluation import evaluate
from progtrain.growth.condition import Condition
from progtrain.growth.counterfactual import contribution, evaluation_flops
from progtrain.growth.expression import Name, asked
from progtrain.growth.policy import FATE
from progtrain.run import Event, Run
from progtrain.setup import Setup


def unpaid(run: Run, setup: Setup, event: Event) -> str | None:
    """Why the condition does not hold, with the figures it saw; None where it holds, or where the
    primary metric is not measured: of a head that has not joined."""
    condition = Condition.parse(setup.growth.keep_if or "", "growth.keep_if", FATE)
    asks = frozenset(node.name for node in asked(condition.tree) if isinstance(node, Name))
    seen = figures(run, setup, event, asks)
    if seen is None or condition.holds(run, **seen):
        return None
    told = ", ".join(f"{name} {value:.4g}" for name, value in seen.items())
    return f"growth.keep_if={setup.growth.keep_if!r} does not hold ({told})"


def figures(run: Run, setup: Setup, event: Event, names: frozenset[str]) -> dict[str, float] | None:
    """The primary metric before and after a growth's life, what it gained, what is new is worth.

    `gain` and `contribution` are positive where the network is better with the growth. The run is
    charged with the evaluations.
    """
    after = evaluate(run, setup, setup.batches.sets.validation, "val").get(run.metric)
    if after is None:
        return None
    before = event.metric_before if event.metric_before is not None else after
    sign = 1 if run.mode == "max" else -1
    seen = {"before": before, "after": after, "gain": sign * (after - before)}
    if "contribution" in names:
        seen["contribution"] = contribution(run, setup, event, after)
    run.clock.charge(GROWTH, (1 + ("contribution" in names)) * evaluation_flops(run, setup))
    return {name: value for name, value in seen.items() if name in names}
