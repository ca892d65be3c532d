"""`progtrain.grow`: growth in a training loop of one's own, with torch's optimizers.

    model, optimizer = progtrain.grow(model, optimizer, x, WidenDuplicate(factor=2))

The model and the optimizer given are not touched; those returned are copies that have grown.
docs/python.md has a complete example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from progtrain.clock import Moment, Unit
from progtrain.contracts import Operator, StatePolicy, Strength, Warmup
from progtrain.errors import ConfigError, GrowthError
from progtrain.flops import num_params
from progtrain.growth import grow as growth
from progtrain.growth.controls import Controls
from progtrain.growth.gates import check_isolation
from progtrain.growth.identity import silence_newborn
from progtrain.growth.newborn import evaluate
from progtrain.growth.proof import judge, measure
from progtrain.growth.transaction import check_pair
from progtrain.optimizer_states.asymmetric import AsymmetricState
from progtrain.optimizers.grown import grown_optimizers
from progtrain.run import Event, Phase, Probe, Template, no_template
from progtrain.settings import Proof
from progtrain.warmups.none import NoWarmup

O = TypeVar("O", Optimizer, list[Optimizer])  # noqa: E741 - as torch's own stubs call it
_RAMPS: WeakKeyDictionary[nn.Module, Ramp] = WeakKeyDictionary()  # that are not over


class Ramp:
    """Blends in what a growth has brought: alpha from 0 to 1 in so many steps.

    Call `step` once before every training step. After the last one the model is free of hooks and
    may grow again.
    """

    def __init__(self, model: nn.Module, event: Event, warmup: Warmup, steps: int) -> None:
        self.steps, self.taken, self.alpha = steps, 0, event.alpha
        self._warmup, self._index = warmup, event.index
        self._controls = Controls(model, [event], warmup)
        if steps:
            _RAMPS[model] = self

    @property
    def over(self) -> bool:
        return self.taken >= self.steps

    def step(self) -> float:
        """The alpha that the coming training step has; 1 for ever after the last."""
        if not self.over:
            self.taken += 1
            strength = self._warmup.strength(Phase.WARMUP, self.taken / self.steps)
            self.alpha = 1.0 if self.over else strength.alpha
            self._controls.set({self._index: Strength(self.alpha)})
            if self.over:
                self._controls.lift()
        return self.alpha


@overload
def grow(
    model: nn.Module,
    optimizer: O,
    x: Tensor,
    operator: Operator,
    *,
    warmup: None = None,
    y: Tensor | None = None,
    seed: int = 0,
    state: StatePolicy | None = None,
    proof: Proof | None = None,
    template: Template = no_template,
) -> tuple[nn.Module, O]: ...
@overload
def grow(
    model: nn.Module,
    optimizer: O,
    x: Tensor,
    operator: Operator,
    *,
    warmup: Warmup,
    y: Tensor | None = None,
    seed: int = 0,
    state: StatePolicy | None = None,
    proof: Proof | None = None,
    template: Template = no_template,
) -> tuple[nn.Module, O, Ramp]: ...
def grow(
    model: nn.Module,
    optimizer: Any,
    x: Tensor,
    operator: Operator,
    *,
    warmup: Warmup | None = None,
    y: Tensor | None = None,
    seed: int = 0,
    state: StatePolicy | None = None,
    proof: Proof | None = None,
    template: Template = no_template,
) -> Any:
    """A grown copy of `model`, and its optimizer (or list of them) with the state grown along.

    `x` is a batch of inputs (batch, ...), on which the network is traced and the growth checked;
    operators that look at gradients need targets `y` too. With `warmup` (a ramp whose length is
    in steps, or ZeroInit) a `Ramp` comes as the third. `state` says what the optimizer remembers,
    by default all of the old and nothing for the new. `template` builds a block for a stack that
    has none.

    Under AdamW, Adam, Muon and SGD (without dampening) old entries go on as if nothing had grown
    and new ones begin as under a new optimizer; others get the mean of second moments
    (optimizers/torch_optimizer.py). A parameter that is new as a whole joins the group of its
    counterpart in the neighbouring block. Raises `GrowthError`: then nothing has happened.
    """
    if model in _RAMPS and not _RAMPS[model].over:
        raise GrowthError("This model is in the middle of a ramp: grow it when `ramp.over`.")
    if hasattr(model, "_orig_mod"):
        raise ConfigError("torch.compile has wrapped this model: give model._orig_mod.")
    steps = _length(warmup) if warmup is not None else 0
    chosen = warmup or NoWarmup()
    grown, before = _grown(model, x, y, operator, chosen, seed, template)
    event = _event(grown, operator, chosen, bool(steps))
    ramp = Ramp(grown.model, event, chosen, steps)
    try:
        with growth.running("of grow"):
            after = evaluate(grown.model, x)
        measured = measure(before, after, _targets(before))
        judge(measured, event.promised, proof or Proof(), before, grown.edit)
        given: Sequence[Optimizer] = optimizer if isinstance(optimizer, list) else [optimizer]
        made = grown_optimizers(model, given, grown, state or AsymmetricState())
    except BaseException:
        _RAMPS.pop(grown.model, None)
        raise
    remade = made if isinstance(optimizer, list) else made[0]
    return (grown.model, remade) if warmup is None else (grown.model, remade, ramp)


def _grown(
    model: nn.Module,
    x: Tensor,
    y: Tensor | None,
    operator: Operator,
    warmup: Warmup,
    seed: int,
    template: Template,
) -> tuple[growth.Grown, Tensor]:
    """The grown copy with the values it begins with, and what the network computed before."""
    check_pair(operator, warmup)
    plain = growth.uncompiled(model)
    before: Any = evaluate(plain, x)
    if not isinstance(before, Tensor) or before.ndim < 2:
        raise ConfigError("grow needs a model that returns one tensor (batch, ..., outputs).")
    host = growth.Host(plain, Probe(x, _targets(before) if y is None else y), template)
    with growth.running("of grow"):
        grown = growth.grow(host, operator, seed)
        if warmup.zeroes:
            silence_newborn(grown)
        if warmup.isolates:
            check_isolation(grown.model, grown.edit)
    return grown, before


def _event(grown: growth.Grown, operator: Operator, warmup: Warmup, ramps: bool) -> Event:
    """The growth as those who blend it in need to know it."""
    edit, now = grown.edit, Moment()
    silent = warmup.preserves and not edit.answers
    return Event(
        index=0,
        stage="grow",
        cause="asked for",
        edit=edit,
        moment=now,
        phase=Phase.WARMUP if ramps else Phase.INTEGRATED,
        since=now,
        slabs=edit.slabs(),
        blocks=edit.blocks(),
        inserted=edit.inserted(),
        heads=edit.heads(),
        params_before=num_params(grown.host.model),
        params_after=num_params(grown.model),
        flops_before=0.0,
        flops_after=0.0,
        promised=(operator.preserves or silent) and not edit.inexact,
        preservation_error=0.0,
        metric_before=None,
        alpha=warmup.strength(Phase.WARMUP, 0.0).alpha if ramps else 1.0,
        shares=operator.shares,
    )


def _length(warmup: Warmup) -> int:
    """Steps of a ramp; 0 where there is nothing to ramp."""
    lengths = warmup.lengths()
    if not lengths:
        return 0
    if not warmup.blends or set(lengths) != {Phase.WARMUP}:
        raise ConfigError(
            f"grow cannot warm up by {type(warmup).__name__}: its loop is yours. Use LinearRamp,"
            " CosineRamp, ExponentialRamp or ZeroInit."
        )
    length = lengths[Phase.WARMUP]
    if length.unit is not Unit.STEP or length.value != int(length.value):
        raise ConfigError(f"A ramp of grow counts steps: length='200steps', got {str(length)!r}.")
    return int(length.value)


def _targets(before: Tensor) -> Tensor:
    """Some target for every row of outputs (batch, ..., outputs)."""
    return torch.zeros(before.shape[:-1], dtype=torch.int64, device=before.device)
