"""Several heads over one backbone: which answers, which learn, and all their outputs at once.

Every head's output comes from one pass: hooks catch what each head gives. That is the network's
output as long as the network returns what its head gives; where it computes on with it, only the
head that answers can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from progtrain.errors import ConfigError
from progtrain.growth.add_head import FIRST, heads_of
from progtrain.objective import Criterion, measured, plain

ByHead = Callable[[Tensor], dict[str, Tensor]]


def head_names(model: nn.Module) -> list[str]:
    heads = heads_of(model)
    return list(heads.heads) if heads is not None else [FIRST]


@contextmanager
def answering(model: nn.Module, name: str | None) -> Generator[None]:
    """Let the head `name` answer; the newest does where None, or where it has not joined yet."""
    heads = heads_of(model)
    if heads is None or name is None or name not in heads.heads:
        yield
        return
    before, heads.answers = heads.answers, name
    try:
        yield
    finally:
        heads.answers = before


@contextmanager
def outputs_by_head(model: nn.Module) -> Generator[ByHead]:
    """Gives what every head said in the pass whose output is shown, by name.

    Nothing where there is one head only, or where the output is not what the head gave.
    """
    heads, caught = heads_of(model), dict[str, Tensor]()

    def catch(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            caught[name] = out

        return hook

    def by_head(output: Tensor) -> dict[str, Tensor]:
        told = heads is not None and _same(caught.get(heads.answers), output)
        return {**caught, heads.answers: output} if heads is not None and told else {}

    named = heads.heads.items() if heads is not None else ()
    handles = [head.register_forward_hook(catch(name)) for name, head in named]
    try:
        yield by_head
    finally:
        for handle in handles:
            handle.remove()


def _same(caught: Tensor | None, output: Tensor) -> bool:
    """Whether two are one tensor, or one seen by another name, as DeepSpeed hands it on."""
    if caught is None or caught is output:
        return caught is output
    return not output.is_meta and caught.is_set_to(output)


def train_every_head(model: nn.Module) -> None:
    """Let every head learn: all run in training as well, and none is frozen."""
    heads = heads_of(model)
    if heads is not None:
        heads.every = True
        heads.requires_grad_(True)


def mean_loss(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    criterion: Criterion = plain,
    called: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss on the labels, a mean over all heads that learn, and the logits of the newest.

    `called` is what is called in place of the network, where something stands around it.
    """
    heads, run = heads_of(model), called or model
    if heads is None or not heads.every:
        logits = run(x)
        return measured(criterion, logits, y), logits
    with outputs_by_head(model) as by_head:
        logits = run(x)
        outputs = by_head(logits)
    sizes = {name: out.shape[-1] for name, out in outputs.items()}
    if len(set(sizes.values())) != 1:
        why = f"their outputs differ: {sizes}" if sizes else "it computes on with what heads give"
        raise ConfigError(
            f"train.heads=all cannot train the heads of this {type(model).__name__} together:"
            f" {why}. Use train.heads=newest."
        )
    losses = [measured(criterion, out, y) for out in outputs.values()]
    return sum(losses[1:], start=losses[0]) / len(losses), logits
