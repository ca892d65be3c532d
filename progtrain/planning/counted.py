"""What a stage takes, counted on the meta device: no memory, no computation, no seconds.

Activations are what autograd saves of one forward pass, each storage once. The peak of a step lies
above that by the gradients of activations and workspace, which nobody can count beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from progtrain.flops import on_meta
from progtrain.growth.average import begin
from progtrain.growth.heads import outputs_by_head
from progtrain.growth.transaction import sliced_tensors
from progtrain.objective import cross_entropy
from progtrain.optimizers.group import OptimizerSet
from progtrain.planning.memory import held
from progtrain.planning.rows import Held
from progtrain.run import Probe, Run
from progtrain.setup import Setup

_META = torch.device("meta")


def without_values(run: Run, setup: Setup) -> Run:
    """The run with a network, a probe and templates on the meta device."""
    model = on_meta(run.model)
    return replace(
        run,
        model=model,
        optimizer=_optimizer(model, run, setup),
        probe=Probe(run.probe.x.to(_META), run.probe.y.to(_META)),
        average=begin(model) if run.average is not None else None,
        template=partial(_built, run.template),
        blank=partial(_built, run.blank),
        clock=replace(run.clock),
        events=list(run.events),
        memory=dict(run.memory),
        ways_back={},
        teachers=[],
    )


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    with _META:
        return build()


def _optimizer(model: nn.Module, run: Run, setup: Setup) -> OptimizerSet:
    sliced = sliced_tensors(run.edits)
    return setup.optimizer.build(dict(model.named_parameters()), sliced)


def counted_held(run: Run, setup: Setup, teachers: int = 0) -> Held:
    """What the run will hold once the optimizer has stepped; `teachers` are their bytes."""
    ahead = without_values(run, setup)
    for p in ahead.model.parameters():
        p.grad = torch.empty_like(p)
    ahead.optimizer.step()
    for p in ahead.model.parameters():
        p.grad = None
    found = held(ahead, _META)
    return replace(found, kept=found.kept + teachers)


def activations(model: nn.Module, x: Tensor, size: int) -> int:
    """Bytes that autograd saves of a forward pass of `size` samples like `x` (batch, ...), in
    float32; parameters are not among them."""
    model = on_meta(model).train()
    own = {StorageWeakRef(p.untyped_storage()).cdata for p in model.parameters()}
    saved: dict[int, tuple[Tensor, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = StorageWeakRef(storage).cdata
        if key not in own:
            saved[key] = tensor.detach(), storage.nbytes()  # held, so that no address comes twice
        return tensor

    batch = torch.empty(size, *x.shape[1:], dtype=x.dtype, device=_META)
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        outputs_by_head(model) as by_head,
    ):
        out = model(batch)
        y = torch.zeros(out.shape[:-1], dtype=torch.long, device=_META)
        losses = [cross_entropy(each, y) for each in (by_head(out) or {"": out}).values()]
        sum(losses[1:], start=losses[0])
    return sum(size for _, size in saved.values())
