"""Sets what the coming step sees, and counts what a step costs at that size."""

from __future__ import annotations

import weakref

import torch

from progtrain.clock import Moment
from progtrain.curriculum.seen import shaped
from progtrain.curriculum.view import View
from progtrain.flops import forward_flops, training_flops
from progtrain.growth.grow import uncompiled
from progtrain.growth.past import last_growth
from progtrain.hardware.recomputation import recomputed_flops
from progtrain.run import Run, Teacher
from progtrain.setup import Setup


def cycle_start(run: Run) -> Moment:
    """What a curriculum's progress counts from.

    The start of the run; or, where it starts again with every growth, the end of the last growth's
    life cycle, from which triggers count as well: the whole length is then trained with a structure
    that stays. A growth that is still joining sees the data of the beginning.
    """
    if not run.recurring:
        return Moment()
    return run.clock.now if run.living else last_growth(run)


class Sight:
    """Knows for which network and size the cost of a sample has been counted."""

    def __init__(self, recomputes: bool = False) -> None:
        self._known: tuple[object, ...] | None = None
        self._recomputes = recomputes  # by activation checkpointing
        self.recomputed = 0.0  # FLOPs of a sample that are computed twice

    def look(self, run: Run) -> bool:
        """Set the coming step's view and batch; whether its cost must be measured."""
        run.view = run.curriculum.view(run, cycle_start(run))
        run.batch_size = batch_size(run, run.view)
        return self._known != _counted_for(run)

    def measure(self, run: Run) -> None:
        """Count the cost of a sample, on a network that is as it is: without hooks or freezes."""
        self._known = _counted_for(run)
        look_cost(run)
        run.view_flops, run.view_taught = None, 0.0
        x = shaped(run.probe.x, run.view)
        if self._recomputes:
            self.recomputed = recomputed_flops(uncompiled(run.model), x, run.frozen)
        if run.view.side is None and run.view.length is None and not run.frozen:
            return
        run.view_taught = sum(_teacher_flops(teacher, run) for teacher in run.teachers)
        own = training_flops(uncompiled(run.model), x, run.frozen)
        run.view_flops = own + run.view_taught


def look_cost(run: Run) -> None:
    """Count what evaluating a sample costs, on networks that are as they are."""
    looked = (run.model, *([run.average] if run.average is not None else []))
    run.evaluation_flops = sum(forward_flops(uncompiled(each), run.probe.x) for each in looked)


def _counted_for(run: Run) -> tuple[object, ...]:
    """What the cost of a sample depends on; holds no network."""
    taught = tuple(teacher.growth for teacher in run.teachers)
    return weakref.ref(run.model), run.view.side, run.view.length, taught, run.frozen


def _teacher_flops(teacher: Teacher, run: Run) -> float:
    first = next(teacher.model.parameters())
    x = shaped(run.probe.x, run.view)
    return forward_flops(
        teacher.model, x.to(first.device, first.dtype if x.is_floating_point() else None)
    )


def batch_size(run: Run, view: View) -> int:
    """Samples of one optimizer step; a curriculum that sets it sets it at all times."""
    return run.batch_size if view.batch_size is None else view.batch_size * run.accumulate


def view_flops(model: torch.nn.Module, run: Run, view: View) -> float:
    """FLOPs of one training sample of the view's size, forward and backward."""
    return training_flops(model, shaped(run.probe.x, view))


def begin(run: Run, setup: Setup, ranked: bool) -> None:
    """Before the first step: refuse what cannot work, rank the samples, set the first view.

    `ranked`: whether the samples shall be put in order, if that has not been done already.
    """
    run.curriculum.check(run)
    if ranked and run.order is None:
        run.order = run.curriculum.order(run, setup)
    sight = Sight()
    if sight.look(run):
        sight.measure(run)
