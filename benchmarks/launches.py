"""How many operations a step starts, beside a hand-written loop of the same network.

    python benchmarks/launches.py          or        --models cnn

Where a step is a matter of launches, as on a GPU with a small network, its time is their number.
They are counted on a CPU by torch's dispatcher, in a step that is made as on a GPU: AdamW is the
fused one, and whether a number is not finite is left on the device. Views launch nothing and are
not counted. A network grows in depth and then in width; `from scratch` and `by hand` train the
full one. Long after a growth AdamW counts no more for each entry (optimizers/sliced_adamw.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from overhead import CONF, assemble, by_hand
from torch.utils._python_dispatch import TorchDispatchMode

from progtrain import steps
from progtrain.build import Parts, build
from progtrain.machine import Machine, State

MODELS = {
    "cnn": ("model=cnn",),
    "resnet": ("model=resnet",),
    "gpt": ("model=gpt", "model.depth=2", "data=text", "data.bytes=20000"),
}
GROWN = (
    "growth=schedule", "growth.stages.deeper.at=4steps", "growth.stages.wider.at=12steps",
    "warmup=cosine_ramp", "warmup.length=4steps",
)  # fmt: skip
SEEN = {"ramp": 14, "grown": 20, "grown long ago": 24}  # the step, after some of its kind


class Operations(TorchDispatchMode):
    """Counts what would be launched on a device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or func is torch.ops.aten._local_scalar_dense.default)
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on_a_gpu() -> Generator[None]:
    adam = torch.optim.AdamW

    def fused(*given: Any, **settings: Any) -> torch.optim.Optimizer:
        return adam(*given, **{**settings, "fused": True})

    with (
        mock.patch.object(torch.optim, "AdamW", fused),
        mock.patch.object(steps, "reading_is_free", lambda _: False),
    ):
        yield


def parts_of(*words: str) -> Parts:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(compose("config", ["hardware.threads=1", *words]))


def of_steps(parts: Parts) -> dict[int, int]:
    """Operations of every step until the last that is looked at."""
    run, setup = assemble(parts)
    counts: dict[int, int] = {}
    moves = Machine(run, setup).moves()
    coming = next(moves)
    while run.clock.step < max(SEEN.values()):
        with Operations() as operations:
            done, coming = coming, next(moves)
        if done is State.STEP:
            counts[run.clock.step] = operations.count
        if run.clock.step == SEEN["grown"]:
            run.optimizer.settle(torch.zeros_like)  # as if its entries were old enough
    assert run.params == run.full_params
    return counts


def of_hand(parts: Parts) -> int:
    _, setup = assemble(parts)
    train = by_hand(setup, partial(float, 0))
    train(2)
    with Operations() as operations:
        train(1)
    return operations.count - 1  # the order of an epoch


def row(model: str, *words: str) -> dict[str, int]:
    """Operations a step of `model` in each way."""
    with as_on_a_gpu():
        scratch = parts_of("growth=none", *MODELS[model], *words)
        grown = of_steps(parts_of(*GROWN, *MODELS[model], *words))
        return {
            "by hand": of_hand(scratch),
            "from scratch": of_steps(scratch)[SEEN["grown"]],
            **{name: grown[step] for name, step in SEEN.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    for model in parser.parse_args().models.split(","):
        for words in ((), ("train.ema=0.9",)):
            found = row(model, *words)
            told = "  ".join(f"{name} {count:>5}" for name, count in found.items())
            print(f"{model:<7} {' '.join(words):<13}  {told}", flush=True)


if __name__ == "__main__":
    main()
