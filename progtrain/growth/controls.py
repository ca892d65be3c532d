"""What living growths do to training: blend what is new, slow it, freeze the host.

Nothing of this is state. The controls are made from `Run.events` and put on the network with hooks;
they come off before a network is copied or grown and go on again afterwards, and a resumed run
makes the same ones. alpha is set by the machine once an optimizer step and never by a forward call.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from progtrain.contracts import Strength, Warmup
from progtrain.growth.gates import gates
from progtrain.growth.tensors import matching
from progtrain.hardware.shards import learners, like, shape_of
from progtrain.optimizers.group import OptimizerSet
from progtrain.run import Event, Phase

WARMING = (Phase.ISOLATE, Phase.WARMUP, Phase.HOLD)
Masks = Iterator[tuple[str, Tensor]]  # by name of a parameter or buffer


class Controls:
    """Hooks and freezes for the growths that are still warming up."""

    def __init__(
        self,
        model: nn.Module,
        events: Sequence[Event],
        warmup: Warmup,
        frozen: Sequence[str] = (),  # patterns of parameters that do not train
        device: torch.device | None = None,  # of what computes; None: where the network begins
    ) -> None:
        self._model, self._all = model, events
        self._events = [event for event in events if event.phase in WARMING]
        self._alphas: dict[int, Tensor] = {}
        self._masks: dict[tuple[object, ...], list[tuple[str, Tensor]]] = {}
        self._handles: list[RemovableHandle] = []
        device = device or next(model.parameters()).device
        for event in self._events if warmup.blends else []:
            alpha = torch.tensor(event.alpha, device=device)
            self._alphas[event.index] = alpha
            self._handles += gates(model, event, alpha, warmup.isolates)
        self.frozen = self._without_gradient(frozen)  # parameters by name
        for name in self.frozen:
            model.get_parameter(name).requires_grad_(False)

    def set(self, strengths: Mapping[int, Strength]) -> None:
        """Give every living growth its alpha, by event index."""
        for index, alpha in self._alphas.items():
            alpha.fill_(strengths[index].alpha)

    def lift(self) -> None:
        """Take everything off the network."""
        for handle in self._handles:
            handle.remove()
        for name in self.frozen:
            self._model.get_parameter(name).requires_grad_(True)
        self._handles, self.frozen = [], ()

    @contextmanager
    def limited(
        self, optimizer: OptimizerSet, strengths: Mapping[int, Strength]
    ) -> Generator[None]:
        """Around the optimizer step: slow the updates of new entries, undo those of a frozen host.

        Parameters that are new as a whole have an optimizer group with a rate of its own; this is
        for new entries of older tensors. Updates are scaled after the fact,
        w ← before + rate · (after − before), because scaling gradients changes nothing under Adam.
        """
        slowed = [
            _Slowed(self._parameter(name), mask, strengths[event.index].newborn_rate)
            for event in self._events
            if strengths[event.index].newborn_rate != 1
            for name, mask in self._known(_new_entries, [event])
        ]
        held = {name: tensor.clone() for name, tensor, _ in self._partly_new(optimizer)}
        yield
        for each in slowed:
            each.restore()
        for name, tensor, new in self._partly_new(optimizer):
            before = held.get(name, torch.zeros_like(tensor))  # or state that begins in this step
            tensor.copy_(torch.where(new, tensor, before))

    @contextmanager
    def still_buffers(self) -> Generator[None]:
        """Around forward passes in training: running statistics of a frozen host stay."""
        masks = self._known(_old_statistics, self._isolated())
        held = [_Slowed(self._model.get_buffer(name), mask, 0.0) for name, mask in masks]
        yield
        for each in held:
            each.restore()

    def _isolated(self) -> list[Event]:
        """The oldest growth whose host is frozen, and all younger ones: they are not its host."""
        if not self._events:
            return []
        first = [event.index for event in self._events if event.phase is Phase.ISOLATE][:1]
        return [event for event in self._all if first and event.index >= first[0]]

    def _known(
        self, find: Callable[[nn.Module, Sequence[Event]], Masks], events: Sequence[Event]
    ) -> list[tuple[str, Tensor]]:
        """The masks that `find` makes, made once: in every step they would wait for the device."""
        key = (find, *(event.index for event in events))
        if key not in self._masks:
            self._masks[key] = list(find(self._model, events)) if events else []
        return self._masks[key]

    def _parameter(self, name: str) -> Tensor:
        return learners(self._model)[name].detach()

    def _without_gradient(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Parameters to freeze; what has no gradient neither moves nor decays, and gets no
        optimizer state."""
        isolated, named = self._isolated(), dict(self._model.named_parameters())
        chosen = {name for pattern in patterns for name in matching(named, pattern)}
        found: list[str] = []
        for name, parameter in named.items() if isolated or chosen else ():
            host = isolated and not bool(_newborn_mask(name, parameter, isolated).any())
            if parameter.requires_grad and (host or name in chosen):
                found.append(name)
        return tuple(found)

    def _partly_new(self, optimizer: OptimizerSet) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name, tensor, mask of new entries) of weights and optimizer state that hold entries of
        the host and new ones, while the host is frozen."""
        for name, new in self._known(_partly_new, self._isolated()):
            parameter = self._parameter(name)
            yield name, parameter, new
            for key, state in optimizer.state_of(name).items():
                if state.shape == parameter.shape:
                    yield f"{name}/{key}", state, new


class _Slowed:
    """Remembers a tensor and lets only a share of its change pass where `mask` is true."""

    def __init__(self, tensor: Tensor, mask: Tensor, rate: float) -> None:
        self.tensor, self.mask, self.rate = tensor, mask, rate
        self.before = tensor.clone()

    def restore(self) -> None:
        if self.rate == 0:
            wanted = self.before
        else:
            wanted = self.before + self.rate * (self.tensor - self.before)
        self.tensor.copy_(torch.where(self.mask, wanted, self.tensor))


def _newborn_mask(name: str, tensor: Tensor, events: Sequence[Event]) -> Tensor:
    """Which entries are new; never in shards, and known of a tensor without values as well."""
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    mask = torch.zeros(shape_of(tensor), dtype=torch.bool, device=device)
    for event in events:
        if name.startswith(new_modules(event)):
            mask.fill_(True)
        for slab in event.slabs:
            if slab.tensor == name:
                slab.write(mask, True)
    return mask


def _new_entries(model: nn.Module, events: Sequence[Event]) -> Masks:
    """New entries of parameters that are not new as a whole."""
    grown = {slab.tensor for event in events for slab in event.slabs}
    new = tuple(name for event in events for name in new_modules(event))
    held = learners(model)
    for name, parameter in model.named_parameters():
        if name in grown and not name.startswith(new):
            yield name, like(_newborn_mask(name, parameter, events), held[name])


def _partly_new(model: nn.Module, events: Sequence[Event]) -> Masks:
    """New entries of parameters that hold older ones as well."""
    held = learners(model)
    for name, parameter in model.named_parameters():
        mask = _newborn_mask(name, parameter, events)
        if bool(mask.any()) and not bool(mask.all()):
            yield name, like(mask, held[name])


def _old_statistics(model: nn.Module, events: Sequence[Event]) -> Masks:
    """Entries of buffers that are not new."""
    for name, buffer in model.named_buffers():
        mask = _newborn_mask(name, buffer, events)
        if not bool(mask.all()):
            yield name, like(~mask, buffer)


def new_modules(event: Event) -> tuple[str, ...]:
    """What the names of the parameters of new modules begin with."""
    return tuple(f"{name}." for name in (*event.blocks, *event.inserted, *event.heads))
