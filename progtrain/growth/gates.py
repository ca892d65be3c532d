"""Gates: hooks that scale what is new by alpha, in training and in evaluation alike.

A new block is blended with its input, x + α (block(x) − x); a new module's output is scaled; what
reads new units reads α times as much of them. With `isolates` no gradient passes from what is new
into the host that feeds it: the host learns as if what is new were a constant.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from progtrain.errors import GrowthError
from progtrain.growth.edits import Edit
from progtrain.growth.tensors import owner
from progtrain.growth.widen_space import Slab, WidenSpace
from progtrain.hardware.shards import shape_of
from progtrain.run import Event

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)  # that read what is their input


def gates(model: nn.Module, event: Event, alpha: Tensor, isolates: bool) -> list[RemovableHandle]:
    """The hooks for one growth; raises `GrowthError` for what cannot be isolated."""
    handles: list[RemovableHandle] = []
    for slab in event.slabs:
        for name in slab.readers if slab.consumer else ():
            handles += _gate(model, name, slab, alpha)
        if isolates and slab.producer:
            handles += _isolate_units(model, slab)
    for name in event.blocks:
        handles += _blend(model.get_submodule(name), alpha, isolates)
    for name in event.inserted:
        new = model.get_submodule(name)
        handles += [new.register_forward_pre_hook(_detached)] if isolates else []
        handles.append(new.register_forward_hook(_scale_output(alpha)))
    return handles


@contextmanager
def switched_off(model: nn.Module, event: Event) -> Generator[None]:
    """The network without what `event` brought, whatever ramps do to it."""
    device = next(model.parameters()).device
    handles = gates(model, event, torch.zeros((), device=device), isolates=False)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gate(model: nn.Module, name: str, slab: Slab, alpha: Tensor) -> list[RemovableHandle]:
    """A layer's new inputs, or new columns of a weight that another module reads, × alpha."""
    reader, (holder, attribute) = model.get_submodule(name), owner(model, slab.tensor)
    own = getattr(reader, attribute, None) is getattr(holder, attribute)
    if own and isinstance(reader, _LAYERS) and getattr(reader, "groups", 1) == 1:
        return [reader.register_forward_pre_hook(_scale_input(reader, attribute, slab, alpha))]

    def scale(_: nn.Module, args: tuple[Any, ...]) -> None:
        weight = getattr(holder, attribute)
        new = slab.mask(weight.detach()).to(weight.dtype)
        vars(holder)[attribute] = weight * (1 - new + alpha.to(weight.dtype) * new)

    def unscale(*_: Any) -> None:
        vars(holder).pop(attribute, None)

    return [
        reader.register_forward_pre_hook(scale),
        reader.register_forward_hook(unscale, always_call=True),
    ]


def _scale_input(module: nn.Module, name: str, slab: Slab, alpha: Tensor) -> Any:
    """x_B...F · (1 where a feature is old, alpha where it is new)."""
    weight = getattr(module, name)
    new_F = slab.mask(weight).transpose(0, slab.dim).flatten(1).any(1).to(weight.dtype)
    old_F = 1 - new_F
    last = isinstance(module, nn.Linear)

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x = args[0]
        scale_F = old_F + alpha * new_F
        shape = [1] * x.ndim
        shape[-1 if last else 1] = -1
        return (x * scale_F.to(x.dtype).reshape(shape), *args[1:])

    return hook


def _blend(block: nn.Module, alpha: Tensor, isolates: bool) -> list[RemovableHandle]:
    """x + alpha · (block(x) − x); isolated, the gradient of x is as if the block were not there."""
    given: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        given.append(args[0])
        return (args[0].detach(), *args[1:])

    def blend(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        if not isolates:
            return torch.lerp(args[0].to(out.dtype), out, alpha.to(out.dtype))
        x = given.pop().to(out.dtype)
        return x + alpha.to(out.dtype) * (out - x.detach())

    kept = [block.register_forward_pre_hook(keep)] if isolates else []
    return [*kept, block.register_forward_hook(blend)]


def _scale_output(alpha: Tensor) -> Any:
    """alpha · f(x): the wrapper adds it to what the host computes."""

    def hook(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out * alpha.to(out.dtype)

    return hook


def _detached(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.detach() if isinstance(arg, Tensor) else arg for arg in args)


def blends(edit: Edit) -> bool:
    """Whether a ramp finds anything to blend in: a block, a module, or units that are read."""
    read = any(slab.consumer and slab.readers for slab in edit.slabs())
    return bool(read or edit.blocks() or edit.inserted())


def check_isolation(model: nn.Module, edit: Edit) -> None:
    """Raise `GrowthError` where what is new cannot be kept from passing gradients on."""
    for change in edit.changes:
        if isinstance(change, WidenSpace) and change.norm is not None:
            raise GrowthError(
                f"warmup.isolated=true cannot isolate new units of {change.space}: a"
                f" {change.norm.value} mixes them with old ones. Use warmup.isolated=false, or"
                " leave the space out by widen.spaces."
            )
    for slab in edit.slabs():
        if slab.producer:
            _fed_layer(model, slab)


def _fed_layer(model: nn.Module, slab: Slab) -> nn.Module | None:
    """The layer that computes new units of what the host feeds it; None where none is fed."""
    layer = model.get_submodule(slab.tensor.rpartition(".")[0])
    dims = len(shape_of(getattr(*owner(model, slab.tensor))))
    if dims < 2 or isinstance(layer, nn.Embedding) or getattr(layer, "groups", 1) > 1:
        return None  # no input, none that a gradient reaches, or one as new as the units are
    if isinstance(layer, _LAYERS) and slab.dim == 0:
        return layer
    if slab.dim != 0 and not isinstance(layer, _LAYERS):
        return None  # a parameter that is added
    raise GrowthError(
        f"warmup.isolated=true cannot keep the gradient of {slab.tensor} from the host:"
        f" {type(layer).__name__} computes new and old units in one. Use warmup.isolated=false."
    )


def _isolate_units(model: nn.Module, slab: Slab) -> list[RemovableHandle]:
    """New units pass no gradient to what they are computed from; their weights have theirs."""
    layer = _fed_layer(model, slab)
    if layer is None:
        return []
    new_F = slab.mask(getattr(*owner(model, slab.tensor))).flatten(1).any(1)
    last = isinstance(layer, nn.Linear)

    def isolate(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        alone = layer.forward(args[0].detach())  # no hooks: they are running
        return torch.where(new_F.reshape(-1, *[1] * (0 if last else out.ndim - 2)), alone, out)

    # before hooks that put the layer's weights away (hardware/zero.py)
    return [layer.register_forward_hook(isolate, prepend=True)]
