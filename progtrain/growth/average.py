"""The moving average of a network's weights (EMA), which grows with them.

An average is a network of its own. At a growth its old entries go through the same change as the
network's, with their own values, so that it computes its own function on; what is new begins at the
network's values, as there is nothing to average yet.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from progtrain.contracts import Operator
from progtrain.growth.add_head import AddHead
from progtrain.growth.grow import Grown
from progtrain.growth.newborn import mean_rows, pad, widened
from progtrain.growth.tensors import tensor_of
from progtrain.growth.widen_space import Norm
from progtrain.hardware.shards import local, stored


def begin(model: nn.Module) -> nn.Module:
    """A copy that no optimizer trains; compilation is dropped."""
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """a ← d a + (1 − d) w after optimizer step `step`, statistics included; counts are copied.

    d = min(decay, (1 + step) / (10 + step)), so that the first weights are soon forgotten.
    """
    now, held = _parts(model), _parts(average)
    floating = [name for name, tensor in held.items() if tensor.is_floating_point()]
    mix = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
    mix([held[name] for name in floating], [now[name] for name in floating], torch.tensor(step))
    for name in held.keys() - set(floating):
        held[name].copy_(now[name])


def _parts(model: nn.Module) -> dict[str, Tensor]:
    """All that a network stores, as far as it lies in this process."""
    return {name: local(tensor) for name, tensor in stored(model).items()}


def follow(average: nn.Module, grown: Grown, operator: Operator, seed: int) -> nn.Module:
    """The average after the growth that has made `grown` of its network."""
    model = copy.deepcopy(average)
    grown.edit.apply(model, grown.host.template)
    generator = torch.Generator().manual_seed(seed)
    if operator.shares:  # new values are the average's own: copies, mixes
        operator.fill(Grown(model, grown.edit, replace(grown.host, model=average)), generator)
    else:
        for change in widened(grown.edit):
            pad(model, change, generator)
        _take_new(model, grown, copied_head=operator.preserves)
    return model.requires_grad_(False)


def _take_new(model: nn.Module, grown: Grown, copied_head: bool) -> None:
    """New entries as the network has them, but for what must equal something of the average's."""
    edit = grown.edit
    for slab in edit.slabs():
        value = slab.read(tensor_of(grown.model, slab.tensor))
        slab.write(tensor_of(model, slab.tensor), value)
    heads = [change.new for change in edit.changes if isinstance(change, AddHead)]
    for change in widened(edit):
        if change.norm is Norm.LAYER:
            mean_rows(model, change)
    for name in (*edit.blocks(), *edit.inserted(), *(heads if not copied_head else ())):
        model.get_submodule(name).load_state_dict(grown.model.get_submodule(name).state_dict())
