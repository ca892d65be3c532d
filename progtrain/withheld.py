"""A step whose loss or gradients are not finite changes nothing.

Where reading a number is free (a CPU), or the loss scaler reads one anyway (fp16), such a step is
not taken. Elsewhere nothing waits for the device: fused optimizers are told not to step, and what
others have done is undone there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from progtrain.hardware.shards import local

Withheld = bool | Tensor  # known, or 1.0 or 0.0 on the device

# torch has no public names for operations on many tensors at once
_private: Any = torch
_foreach_copy: Callable[[Sequence[Tensor], Sequence[Tensor]], None] = _private._foreach_copy_
_find: Callable[[list[Tensor], Tensor, Tensor], None]
_find = _private._amp_foreach_non_finite_check_and_unscale_
_SMALL, _PIECE = 2**18, 2**22  # entries: of a tensor that is copied with others, and of all of them


class Statistics:
    """What forward passes change in a network: its stored buffers, such as running means."""

    def __init__(self, model: nn.Module) -> None:
        moving = [
            buffer.detach()
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name not in module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
        ]
        self._pieces = _pieces(moving)

    @staticmethod
    def of(model: nn.Module) -> Statistics:
        """Those of `model` as they are now."""
        known = _statistics.get(model)
        if known is None:
            known = _statistics[model] = Statistics(model)
        else:
            for each in known._pieces:
                each.keep()
        return known

    def put_back(self, withheld: Withheld) -> None:
        if withheld is not False:
            for each in self._pieces:
                each.put_back(withheld)


class _Piece:
    """Tensors that a device is told about at once: one, or several of one dimension and type."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._kept = tensors[0].clone() if len(tensors) == 1 else torch.cat(tensors)

    def keep(self) -> None:
        if len(self._tensors) == 1:
            self._kept.copy_(self._tensors[0])
        else:
            torch.cat(self._tensors, out=self._kept)

    def put_back(self, withheld: Withheld) -> None:
        one, now = len(self._tensors) == 1, self._tensors[0]
        wanted = self._kept
        if isinstance(withheld, Tensor):
            wanted = torch.where(withheld > 0, wanted, now if one else torch.cat(self._tensors))
        if one:
            now.copy_(wanted)
        else:
            _foreach_copy(self._tensors, wanted.split([len(each) for each in self._tensors]))


def _pieces(tensors: Sequence[Tensor]) -> list[_Piece]:
    """The small ones together, as launching costs more than copying them; each large one alone."""
    pieces: list[list[Tensor]] = []
    filling: dict[object, tuple[list[Tensor], int]] = {}  # by kind: a piece, and its entries
    for tensor in tensors:
        count = tensor.numel()
        if count > _SMALL or not tensor.is_contiguous():
            pieces.append([tensor])
            continue
        kind = tensor.dtype, tensor.device
        piece, held = filling.get(kind, ([], _PIECE))
        if held + count > _PIECE:
            piece, held = list[Tensor](), 0
            pieces.append(piece)
        piece.append(tensor.view(-1))
        filling[kind] = piece, held + count
    return [_Piece(piece) for piece in pieces]


_statistics: WeakKeyDictionary[nn.Module, Statistics] = WeakKeyDictionary()


def nonfinite(tensors: Sequence[Tensor]) -> Tensor:
    """1.0 on the device of `tensors` where any number in them is not finite, else 0.0."""
    device = tensors[0].device
    found = torch.zeros((), device=device)
    kinds = {tensor.dtype for tensor in tensors}
    for kind in kinds:
        _check(tensors if len(kinds) == 1 else [t for t in tensors if t.dtype == kind], found)
    return found


def _check(tensors: Sequence[Tensor], found: Tensor) -> None:
    # the one kernel that looks at many tensors at once; it multiplies them by 1, which changes none
    _find(list(tensors), found, _one(found.device))


@lru_cache(maxsize=8)
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)


def reading_is_free(flag: Tensor) -> bool:
    """Whether to know a flag waits for no device."""
    return flag.device.type == "cpu"


def step_unless(optimizer: torch.optim.Optimizer, withheld: Tensor) -> None:
    """One step of `optimizer`, of which nothing stays where `withheld` is 1.

    Waits for the device only where an optimizer begins its state, or counts on the CPU. One that
    has a method of this name does it by itself.
    """
    own: Callable[[Tensor], None] | None = getattr(optimizer, "step_unless", None)
    if own is not None:
        own(withheld)
        return
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        told: object = optimizer
        told.found_inf = withheld  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del told.found_inf  # type: ignore[attr-defined]
        return
    stepping = [
        p for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    states = [optimizer.state.get(parameter) for parameter in stepping]
    if not all(states) or not all(_on(withheld.device, state) for state in states if state):
        if not bool(withheld):
            optimizer.step()
        return
    tensors = [t for state in states if state for t in state.values() if isinstance(t, Tensor)]
    with undone_where(withheld, [*stepping, *tensors]):
        optimizer.step()


def _on(device: torch.device, state: dict[str, object]) -> bool:
    return all(t.device == device for t in state.values() if isinstance(t, Tensor))


@contextmanager
def undone_where(withheld: Withheld, tensors: Sequence[Tensor]) -> Generator[None]:
    """Around what changes `tensors` in place: where `withheld`, they are as before."""
    if isinstance(withheld, bool):
        assert not withheld
        yield
        return
    with torch.no_grad():
        pieces = _pieces([local(tensor.detach()) for tensor in tensors])
    yield
    with torch.no_grad():
        for piece in pieces:
            piece.put_back(withheld)
