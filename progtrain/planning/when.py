"""When a stage begins, in words."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from progtrain.clock import Moment
from progtrain.contracts import Growth
from progtrain.growth.triggers import Every, Plateau, When
from progtrain.run import Run, Stage


def at(moment: Moment, run: Run) -> str:
    """A time that is known."""
    epoch = moment.samples / run.clock.epoch_samples
    return f"step {moment.step:,} (epoch {epoch:.1f})"


def awaited(growth: Growth, stage: Stage) -> str:
    """What a stage waits for, where nobody knows when that will be."""
    if stage.at is not None:
        return f"at {stage.at}"
    declared = getattr(growth, "stages", {}).get(stage.name)
    condition = getattr(declared, "when", None)
    if condition is not None:
        return f"when {condition}"
    return _triggered(getattr(growth, "trigger", None))


def _triggered(trigger: object) -> str:
    match trigger:
        case Every():
            return f"{trigger.interval} after the growth before it"
        case Plateau():
            return f"when {trigger.metric} has not improved for {trigger.patience} observations"
        case When():
            return f"when {trigger.condition}"
        case _ if is_dataclass(trigger):
            told = ", ".join(f"{f.name} {getattr(trigger, f.name)}" for f in fields(trigger))
            return f"when growth.trigger says so ({type(trigger).__name__}: {told})"
        case _:
            return "when the policy says so"
