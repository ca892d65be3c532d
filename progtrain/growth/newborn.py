"""Values of new entries: the pieces that operators and warmups put together.

Everything here changes a grown network in place and touches new entries only, but for the gains of
layer norms (see `mean_pad`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from progtrain.growth.edits import Edit, Part, Role, Slab, WidenSpace, owner
from progtrain.growth.grow import Grown

_NEUTRAL = {Role.GAIN: 1.0, Role.SHIFT: 0.0, Role.MEAN: 0.0, Role.VARIANCE: 1.0}


def tensor_of(model: nn.Module, name: str) -> Tensor:
    module, attribute = owner(model, name)
    return getattr(module, attribute).detach()


def slab_of(part: Part, change: WidenSpace) -> Slab:
    return Slab(part.tensor, part.dim, part.outer, part.inner, change.old, change.new)


def host_entries(tensor: Tensor, part: Part, change: WidenSpace) -> Tensor:
    """The old units of a tensor, with the dimension split into (outer, old, inner)."""
    return Slab(part.tensor, part.dim, part.outer, part.inner, 0, change.old).view(tensor)


def widened(edit: Edit) -> list[WidenSpace]:
    return [change for change in edit.changes if isinstance(change, WidenSpace)]


def fill_random(
    grown: Grown, change: WidenSpace, roles: Iterable[Role], generator: torch.Generator
) -> None:
    """New units as the host's are: normal with their standard deviation, neutral in norms."""
    wanted = set(roles)
    for part in change.parts:
        if part.role not in wanted:
            continue
        new = slab_of(part, change).view(tensor_of(grown.model, part.tensor))
        if part.role in _NEUTRAL:
            new.fill_(_NEUTRAL[part.role])
            continue
        spread = float(tensor_of(grown.host.model, part.tensor).std(correction=0))
        noise = torch.randn(new.shape, generator=generator, dtype=torch.float64)
        new.copy_(noise * spread)


def zero_consumers(model: nn.Module, slabs: Iterable[Slab]) -> None:
    """Whatever new units compute, nothing is read of it yet."""
    for slab in slabs:
        if slab.consumer:
            slab.view(tensor_of(model, slab.tensor)).zero_()


def mean_pad(model: nn.Module, change: WidenSpace, generator: torch.Generator) -> None:
    """Leave layer norms over the space unmoved (LEMON's average expansion, arXiv 2310.07999).

    New producer rows are the mean of the old ones, so the mean over units stays and the variance
    shrinks by old/new, which the old gains (× √(old/new)) and eps (the edit) take back. New shifts
    are uniform in (0, 1): new units compute 0 before the shift and would be dead behind a ReLU.
    """
    for part in change.parts:
        tensor = tensor_of(model, part.tensor)
        module = part.tensor.rpartition(".")[0]
        old, new = host_entries(tensor, part, change), slab_of(part, change).view(tensor)
        if part.role is Role.PRODUCER:
            new.copy_(old.mean(part.dim + 1, keepdim=True).expand_as(new))
        elif module in change.rescaled_norms and part.role is Role.GAIN:
            old.mul_(change.norm_gain)
        elif module in change.rescaled_norms and part.role is Role.SHIFT:
            new.copy_(torch.rand(new.shape, generator=generator, dtype=torch.float64))


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


def input_of(model: nn.Module, block: nn.Module, x: Tensor) -> Tensor:
    """What `block` reads when `model` runs on `x` in evaluation mode."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0])

    handle = block.register_forward_pre_hook(catch)
    try:
        evaluate(model, x)
    finally:
        handle.remove()
    return caught[0]


def evaluate(model: nn.Module, x: Tensor) -> Tensor:
    """The output on `x` in evaluation mode; the modes are as before afterwards."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return model(x)
    finally:
        for module, mode in training.items():
            module.training = mode


def calibrate(model: nn.Module, slabs: Iterable[Slab], blocks: Iterable[str], x: Tensor) -> None:
    """Set the running statistics of new batch-norm channels from one batch.

    Their channels compute something no average has seen; with mean 0 and variance 1 evaluation
    would be wrong until the averages have caught up.
    """
    new = {(slab.tensor, slab) for slab in slabs}
    fresh = {m for block in blocks for m in model.get_submodule(block).modules()}
    handles = [
        module.register_forward_pre_hook(_batch_statistics(name, module in fresh, new))
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats
    ]
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
                    slab.view(running).copy_(slab.view(value_C.to(running.dtype)))

    return hook
