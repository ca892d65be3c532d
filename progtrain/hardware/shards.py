"""A network whose weights lie in shards on several processes.

Each process holds a part of every parameter, of its gradient and of what the optimizer remembers;
a block's parameters come together while it computes. Names stay as they are. Where a network is
grown, copied or stored it is whole for that time (`sharding.py`).

Who shards is torch (`torch_shards.py`) or DeepSpeed (`zero.py`). torch's parameters are DTensors of
their own shape. DeepSpeed's are empty while nothing computes with them, and the values lie flat
beside them: there the optimizer steps flat DTensors (`learners`). So tensors in shards are DTensors
everywhere else; `whole` makes them whole, and who needs it gives back the shape.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from progtrain.errors import require

# by the network that is sharded: the same as plain modules on the meta device, and what lies flat
_plain: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
_flat: WeakKeyDictionary[nn.Module, Mapping[str, nn.Parameter]] = WeakKeyDictionary()


class InShardsError(Exception):
    """A network's values are asked for, and lie in shards: every process must take part."""


class Shards(Protocol):
    """How networks are sharded."""

    @property
    def home(self) -> torch.device:
        """Where a network is whole, while it is grown, copied or put back."""
        ...

    def spread(self, model: nn.Module) -> None:
        """Shard a network in place, and `note` it; it never is on the device as a whole."""
        ...

    def called(self, model: nn.Module) -> nn.Module:
        """What training calls in place of a network that is sharded."""
        ...

    def reduced(self, model: nn.Module) -> None:
        """The backward passes of a step are over: `learners` must have their gradients."""
        ...

    def stepped(self, model: nn.Module) -> None:
        """`learners` have been stepped: the network must compute with what they are now."""
        ...

    def forget(self) -> None:
        """Hold nothing of the networks that were sharded so far: they are about to go."""
        ...


def check_shards(precision: str, grow_on: str) -> None:
    """Raise `SettingError` for what no kind of shards can do."""
    hint = "Gradients in shards are not scaled; bf16 needs no scaling."
    require(precision != "fp16", "precision", precision, "fp32, tf32 or bf16", hint)
    allowed, hint = "cpu or device", "On the device it must fit there whole, twice over."
    require(grow_on in ("cpu", "device"), "grow_on", grow_on, allowed, hint)


def note(model: nn.Module, twin: nn.Module, flat: Mapping[str, nn.Parameter] | None = None) -> None:
    """`model` is in shards: its plain `twin` without values, and by name what lies flat of it."""
    _plain[model] = twin
    if flat is not None:
        _flat[model] = flat


def is_sharded(model: nn.Module) -> bool:
    return model in _plain


def plain(model: nn.Module) -> nn.Module:
    """A network as plain modules: itself, or of one that is sharded its shapes without values."""
    return _plain.get(model, model)


def learners(model: nn.Module) -> dict[str, nn.Parameter]:
    """What an optimizer steps, by name: the parameters, or what lies flat of them."""
    return dict(_flat.get(model) or model.named_parameters())


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a network by name, in the shape that they have as whole ones.

    Where they lie flat these stand for them: of the same shape and device, without memory.
    """
    if model not in _flat:
        return dict(model.named_parameters())
    held = learners(model)
    return {
        name: nn.Parameter(local(held[name].detach()).new_zeros(()).expand(parameter.shape))
        for name, parameter in plain(model).named_parameters()
    }


def stored(model: nn.Module) -> dict[str, Tensor]:
    """All that a network stores, by name; parameters as they lie."""
    held: dict[str, Tensor] = dict(model.state_dict())
    flat = _flat.get(model)
    if flat is None:
        return held
    names = {id(p): name for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):  # some may be tied
        held[name] = flat[names[id(parameter)]].detach()
    return held


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shapes of all that a network stores, as a whole one."""
    return {name: tensor.shape for name, tensor in plain(model).state_dict().items()}


def shape_of(tensor: Tensor) -> torch.Size:
    """The shape of a network's parameter or buffer, as a whole one."""
    return getattr(tensor, "ds_shape", tensor.shape)  # DeepSpeed's name for it


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every process; a collective call where it lies in shards."""
    if not isinstance(tensor, DTensor):
        return tensor
    shards: Any = tensor.detach()
    found = shards.full_tensor()
    return getattr(found, "wait", lambda: found)()  # of a collective that may still be under way


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(full: Tensor, tensor: Tensor) -> Tensor:
    """`full`, which every process has, in shards as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return full
    mesh, places = tensor.device_mesh, tensor.placements
    made = distribute_tensor(full.reshape(tensor.shape), mesh, places, src_data_rank=None)
    mine, device = made.to_local(), tensor.to_local().device
    if mine.device == device:
        return made
    told: Any = {"shape": made.shape, "stride": made.stride(), "run_check": False}
    return DTensor.from_local(mine.to(device), mesh, places, **told)  # it waits in the CPU's memory


def gathered(model: nn.Module, place: torch.device) -> nn.Module:
    """A whole and plain network of the same values at `place`, brought there tensor by tensor; the
    sharded one is left as it is."""
    made, held = _empty(plain(model), place), learners(model)
    made.train(model.training)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(whole(held[name]).reshape(parameter.shape))
        for name, buffer in made.named_buffers():
            buffer.copy_(model.get_buffer(name))
    return made


def _empty(model: nn.Module, place: torch.device) -> nn.Module:
    """A copy at `place` without values; what is tied stays so."""
    made: dict[int, object] = {id(b): torch.empty_like(b, device=place) for b in model.buffers()}
    for p in model.parameters():
        made[id(p)] = nn.Parameter(torch.empty_like(p, device=place), p.requires_grad)
    return copy.deepcopy(model, made)


def buffers_to(model: nn.Module, device: torch.device) -> None:
    """Bring buffers to where the network computes."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, buffer.to(device), name not in _lost(module))


def _lost(module: nn.Module) -> set[str]:
    """Buffers that are not stored."""
    return module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
