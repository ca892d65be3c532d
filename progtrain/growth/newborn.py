"""Values of new entries: the pieces that operators and warmups put together.

Everything here changes a grown network in place and touches new entries only, but for the gains of
layer norms (see `mean_pad`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from progtrain.errors import GrowthError
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown
from progtrain.growth.tensors import tensor_of
from progtrain.growth.trace import evaluating
from progtrain.growth.widen_space import Norm, Role, Slab, WidenSpace

_NEUTRAL = {
    Role.GAIN: 1.0,
    Role.SHIFT: 0.0,
    Role.MEAN: 0.0,
    Role.VARIANCE: 1.0,
    Role.KEY: 0.0,
}


def widened(edit: Edit) -> list[WidenSpace]:
    return [change for change in edit.changes if isinstance(change, WidenSpace)]


def fill_random(
    grown: Grown, change: WidenSpace, roles: Iterable[Role], generator: torch.Generator
) -> None:
    """New units as the host's are: normal with their standard deviation, neutral in norms.

    Keys start at zero: whatever queries do in the new dimensions, no logit moves.
    """
    wanted = set(roles)
    for part in change.parts:
        if part.role not in wanted:
            continue
        tensor, slab = tensor_of(grown.model, part.tensor), change.slab(part, change.old)
        if part.role in _NEUTRAL:
            slab.write(tensor, _NEUTRAL[part.role])
            continue
        spread = float(tensor_of(grown.host.model, part.tensor).std(correction=0))
        shape = slab.read(tensor).shape
        slab.write(tensor, torch.randn(shape, generator=generator, dtype=torch.float64) * spread)


def zero_consumers(model: nn.Module, slabs: Iterable[Slab]) -> None:
    """Whatever new units compute, nothing is read of it yet."""
    for slab in slabs:
        if slab.consumer:
            slab.write(tensor_of(model, slab.tensor), 0.0)


def pad(model: nn.Module, change: WidenSpace, generator: torch.Generator) -> None:
    """Leave norms over the space unmoved, and logits that a fixed number divides no more."""
    if change.norm is Norm.LAYER:
        mean_pad(model, change, generator)
    elif change.norm is Norm.RMS:
        zero_pad(model, change)
    for part in change.parts:
        tensor = tensor_of(model, part.tensor)
        old = change.slab(part, 0, change.old)
        if part.tensor in change.rescaled_norms and part.role is Role.GAIN:
            old.write(tensor, old.read(tensor) * change.norm_gain)
        elif part.role is Role.KEY and change.key_gain != 1:
            old.write(tensor, old.read(tensor) * change.key_gain)


def mean_pad(model: nn.Module, change: WidenSpace, generator: torch.Generator) -> None:
    """LEMON's average expansion (arXiv 2310.07999) for layer norms.

    New producer rows are the mean of the old ones, so the mean over units stays and the variance
    shrinks by old/new, which the old gains (× √(old/new)) and eps (the edit) take back. New shifts
    are uniform in (0, 1): new units compute 0 before the shift and would be dead behind a ReLU. A
    tied weight cannot be silenced; with it new shifts are 0 and new units reach nobody.
    """
    mean_rows(model, change)
    for part in change.parts:
        tensor, new = tensor_of(model, part.tensor), change.slab(part, change.old)
        if part.role is Role.SHIFT and change.silent:
            new.write(tensor, 0.0)
        elif part.role is Role.SHIFT:
            shape = new.read(tensor).shape
            new.write(tensor, torch.rand(shape, generator=generator, dtype=torch.float64))


def mean_rows(model: nn.Module, change: WidenSpace) -> None:
    """What computes new units is the mean of what computes the old ones."""
    for part in change.parts:
        if part.role in (Role.PRODUCER, Role.TIED):
            tensor, new = tensor_of(model, part.tensor), change.slab(part, change.old)
            old = change.slab(part, 0, change.old).read(tensor)
            new.write(tensor, old.mean(part.dim, keepdim=True).expand_as(new.read(tensor)))


def zero_pad(model: nn.Module, change: WidenSpace) -> None:
    """New units of an RMS-normed stream are 0 (Gesmundo & Maile, arXiv 2308.06103): the mean square
    shrinks by old/new, which the old gains and eps take back."""
    for part in change.parts:
        if part.role in (Role.PRODUCER, Role.TIED):
            change.slab(part, change.old).write(tensor_of(model, part.tensor), 0.0)


def reinitialise(block: nn.Module, generator: torch.Generator) -> None:
    """Fresh values by each layer's own `reset_parameters`, the same ones on every device."""
    seed = int(torch.randint(2**31, (), generator=generator))
    device = next(iter(block.state_dict().values())).device
    block.to("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU as well
        for module in block.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    block.to(device)


class Given(NamedTuple):
    """What a block's caller passes to it; the first argument is the tensor that passes through."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def x(self) -> Tensor:
        return self.args[0]


def input_of(model: nn.Module, block: nn.Module, x: Tensor) -> Given:
    """What `block` reads when `model` runs on `x` in evaluation mode."""
    given = inputs_of(model, [block], x).get(block)
    if given is None:
        raise GrowthError(
            f"A new {type(block).__name__} is never called: the network's code names its blocks"
            " or counts them. Leave its stack out by deepen.stacks."
        )
    if not given.args or not isinstance(given.args[0], Tensor):
        raise GrowthError(
            f"A new {type(block).__name__} cannot be run alone: the network's code does not pass a"
            " tensor as its first argument. Leave its stack out by deepen.stacks."
        )
    return given


def inputs_of(model: nn.Module, blocks: Iterable[nn.Module], x: Tensor) -> dict[nn.Module, Given]:
    """What each of `blocks` that is called reads, in one forward; the first call of each counts."""
    caught: dict[nn.Module, Given] = {}

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module not in caught:  # copies: later layers may write into what these read
            caught[module] = Given(_copied(args), _copied(kwargs))

    handles = [block.register_forward_pre_hook(catch, with_kwargs=True) for block in blocks]
    try:
        evaluate(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return caught


def _copied(value: Any) -> Any:
    """The same with its own tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(item) for item in value)
    return value


def evaluate(model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """The output in evaluation mode and full precision; both are as before afterwards."""
    with evaluating(model), torch.no_grad(), _exact():
        return model(*args, **kwargs)


@contextmanager
def _exact() -> Generator[None]:
    """Full float32 products, whatever the run trains in: a check must see small errors."""
    matmul, conv = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = conv


def calibrate(model: nn.Module, slabs: Iterable[Slab], blocks: Iterable[str], x: Tensor) -> None:
    """Set the running statistics of new batch-norm channels from one batch.

    Their channels compute something no average has seen; with mean 0 and variance 1 evaluation
    would be wrong until the averages have caught up.
    """
    new = {(slab.tensor, slab) for slab in slabs}
    grown = {tensor.rpartition(".")[0] for tensor, _ in new}
    fresh = {m for block in blocks for m in model.get_submodule(block).modules()}
    handles = [
        module.register_forward_pre_hook(_batch_statistics(name, module in fresh, new))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats
        if name in grown or module in fresh
    ]
    if not handles:
        return
    try:
        evaluate(model, x)
    finally:
        for handle in handles:
            handle.remove()


def _batch_statistics(name: str, fresh: bool, slabs: set[tuple[str, Slab]]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        x_BC: Tensor = args[0].transpose(1, -1).flatten(0, -2) if args[0].ndim > 2 else args[0]
        for kind, value_C in (
            ("running_mean", x_BC.mean(0)),
            ("running_var", x_BC.var(0, correction=0)),
        ):
            running: Tensor = getattr(module, kind)
            if fresh:
                running.copy_(value_C)
            for tensor, slab in slabs:
                if tensor == f"{name}.{kind}":
                    slab.write(running, slab.read(value_C.to(running.dtype)))

    return hook
