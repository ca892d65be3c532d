"""What a growth costs on networks people use: seconds and peak memory of one widening.

    python benchmarks/growth_cost.py seconds        or        --models resnet50 --image 64 --batch 4
    python benchmarks/growth_cost.py memory

Every width inside the blocks grows × 2 (widen=zero, optimizer_state=asymmetric). A growth is the
trace, the proposal, a copy of the network with the edit applied and filled, and the new optimizer
with its state carried.

Seconds are medians of CPU time where one thread works, else wall time. The training steps they are
compared with are those of the grown network, taken in turns with the growths; each pair of network
and optimizer has a process of its own.

Memory: `old` is what weights, buffers, gradients and optimizer state hold before the growth, `new`
the same after it, without gradients, which only the next step makes. Both exist at once, as the
host is never touched. `peak` is `old` and the most that torch's allocator has handed out on top of
it within the growth, by torch's profiler: copies, activations of its passes over the probe batch,
temporaries. The resident set says less in a process that has freed memory before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from progtrain.contracts import OptimizerRecipe
from progtrain.flops import num_params
from progtrain.growth.grow import Grown, Host, carry_optimizer, grow
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.spaces import spaces
from progtrain.growth.transaction import sliced_tensors
from progtrain.optimizer_states.asymmetric import AsymmetricState
from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.group import OptimizerSet
from progtrain.optimizers.sgd import SGD
from progtrain.run import Probe

HIDDEN = {"resnet50": "layer*.conv1|layer*.conv2", "vit_b_16": "*.mlp.0"}  # widths inside blocks
RECIPES: dict[str, OptimizerRecipe] = {"SGD, momentum": SGD(lr=1e-3), "AdamW": AdamW(lr=1e-4)}
T = TypeVar("T")
HEADS = {
    "seconds": "| network | optimizer | spaces | grow | carry state | one step | growth in steps |",
    "memory": "| network | optimizer | parameters | old | new | peak | peak / (old + new) |",
}


@dataclass(frozen=True)
class Settings:
    """What all measurements share."""

    batch: int  # images of a training step
    image: int  # pixels of a side
    probe: int  # images that the growth looks at
    rounds: int
    threads: int


@dataclass(frozen=True)
class Seconds:
    """Medians."""

    spaces: float  # finding what can grow; a part of `grow` too
    grow: float
    carry: float
    step: float  # of the grown network

    def cells(self) -> list[str]:
        times = [f"{t:.2f} s" for t in (self.spaces, self.grow, self.carry, self.step)]
        return [*times, f"{(self.grow + self.carry) / self.step:.2f}"]


@dataclass(frozen=True)
class Memory:
    """Of one growth; parameters, then bytes."""

    before: int
    after: int
    old: int
    new: int
    peak: int

    def cells(self) -> list[str]:
        sizes = [f"{size / 1e6:.0f} MB" for size in (self.old, self.new, self.peak)]
        params = f"{self.before / 1e6:.1f} M → {self.after / 1e6:.1f} M"
        return [params, *sizes, f"{self.peak / (self.old + self.new):.2f}"]


@dataclass
class Trained:
    """A network with gradients and optimizer state, as in the middle of a run."""

    model: nn.Module
    recipe: OptimizerRecipe
    optimizer: OptimizerSet

    def step(self, x: Tensor, y: Tensor) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(x), y).backward()
        self.optimizer.step()

    def bytes(self) -> int:
        """Of weights, buffers, gradients and optimizer state."""
        parameters = list(self.model.parameters())
        held = [*parameters, *self.model.buffers()]
        held += [p.grad for p in parameters if p.grad is not None]
        for name in self.optimizer.parameters:
            held += self.optimizer.state_of(name).values()
        return sum(tensor.nbytes for tensor in held)


def start(name: str, recipe: OptimizerRecipe, settings: Settings) -> Trained:
    """The network after one step, so that gradients and optimizer state exist."""
    torch.manual_seed(0)
    size = {"image_size": settings.image} if name.startswith("vit") else {}
    model: nn.Module = getattr(torchvision.models, name)(**size)
    trained = Trained(model, recipe, recipe.build(dict(model.named_parameters()), frozenset()))
    trained.step(*images(settings.probe, settings))
    return trained


def images(count: int, settings: Settings) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, settings.image, settings.image), torch.arange(count)


def host_of(trained: Trained, settings: Settings) -> Host:
    return Host(trained.model, Probe(*images(settings.probe, settings)))


def carried(trained: Trained, grown: Grown) -> Trained:
    """The grown network with an optimizer that remembers what the old one did."""
    sliced, recipe = sliced_tensors([grown.edit]), trained.recipe
    new = recipe.build(dict(grown.model.named_parameters()), sliced)
    carry_optimizer(trained.optimizer, new, grown, sliced, recipe, AsymmetricState())
    return Trained(grown.model, recipe, new)


def timed(work: Callable[[], T], taken: list[float]) -> T:
    """CPU time where one thread works, as neighbours do not slow it, else wall time."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begun = clock()
    made = work()
    taken.append(clock() - begun)
    return made


def seconds(name: str, trained: Trained, settings: Settings) -> Seconds:
    operator, host = WidenZero(HIDDEN[name]), host_of(trained, settings)
    batch = images(settings.batch, settings)
    taken: dict[str, list[float]] = {"spaces": [], "grow": [], "carry": [], "step": []}
    for _ in range(settings.rounds):
        timed(lambda: spaces(host.model, host.probe.x), taken["spaces"])
        grown = timed(lambda: grow(host, operator, seed=0), taken["grow"])
        after = timed(lambda g=grown: carried(trained, g), taken["carry"])
        timed(lambda a=after: a.step(*batch), taken["step"])
    return Seconds(**{each: statistics.median(times) for each, times in taken.items()})


def memory(name: str, trained: Trained, settings: Settings) -> Memory:
    operator, host = WidenZero(HIDDEN[name]), host_of(trained, settings)
    old = trained.bytes()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        after = carried(trained, grow(host, operator, seed=0))
    params = num_params(trained.model), num_params(after.model)
    return Memory(*params, old, after.bytes(), old + most_held(profiler))


def most_held(profiler: Any) -> int:
    """Bytes: the most that was allocated and not yet freed."""
    events = profiler.profiler.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in moves))


def measure(what: str, name: str, optimizer: str, settings: Settings) -> list[str]:
    torch.set_num_threads(settings.threads)
    trained = start(name, RECIPES[optimizer], settings)
    return (memory if what == "memory" else seconds)(name, trained, settings).cells()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=list(HEADS))
    parser.add_argument("--models", default=",".join(HIDDEN), help="names, separated by commas")
    parser.add_argument("--batch", type=int, default=16, help="images of a training step")
    parser.add_argument("--image", type=int, default=224, help="pixels of a side")
    parser.add_argument("--probe", type=int, default=2, help="images that the growth looks at")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = vars(parser.parse_args())
    what, models = options.pop("what"), options.pop("models").split(",")
    settings = Settings(**options)
    print(f"torch {torch.__version__}, float32, {settings}\n")
    print(f"{HEADS[what]}\n{'|---' * (HEADS[what].count('|') - 1)}|", flush=True)
    apart = multiprocessing.get_context("spawn")
    for name in models:
        for optimizer in RECIPES:
            with apart.Pool(1) as pool:
                cells = pool.apply(measure, (what, name, optimizer, settings))
            print(f"| {name} | {optimizer} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
