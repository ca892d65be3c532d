"""Small networks, options found by globbing `conf/`, and runs that can be grown by hand."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.at_growth.continue_ import Continue
from progtrain.clock import Clock, Duration, Moment
from progtrain.contracts import Operator, OptimizerRecipe, Settle, StatePolicy, Warmup
from progtrain.data.sets import Batches, Sets, split_off
from progtrain.flops import num_params, training_flops
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.newborn import evaluate
from progtrain.hardware.cpu import CPU
from progtrain.machine import Machine
from progtrain.models.cnn import CNN
from progtrain.models.gpt import GPT
from progtrain.models.mlp import MLP
from progtrain.models.resnet import ResNet
from progtrain.models.vit import ViT
from progtrain.optimizer_states.asymmetric import AsymmetricState
from progtrain.run import Event, Phase, Probe, Run, Stage, StopReason, no_template
from progtrain.schedulers.constant import Constant
from progtrain.settings import Checkpoints, Stopping, Training
from progtrain.settling.none import NoSettling
from progtrain.setup import Setup
from progtrain.warmups.none import NoWarmup

CONF = Path(__file__).parent.parent / "conf"
SHAPE, CLASSES = (1, 4, 4), 3
CONTEXT, VOCABULARY = (8,), 11


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny convolutions lose more by waiting for each other than they gain; import to use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def make(group: str, name: str, **changes: object) -> Any:
    """An option as its YAML says, but for what its class does not take of `changes`."""
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    module, _, kind = config.pop("_target_").rpartition(".")
    cls = getattr(importlib.import_module(module), kind)
    known = {f.name for f in fields(cls)}
    return cls(**config | {key: value for key, value in changes.items() if key in known})


class FlatNet(nn.Module):
    """A convolution whose channels a linear layer reads behind a flatten."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.hidden = nn.Linear(width * 16, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.hidden(F.gelu(self.norm(self.conv(x))).flatten(1))))


class Mixer(nn.Module):
    """x + out(gelu(depth(expand(norm(x))))): what a user may write."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.depth = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.out = nn.Conv2d(2 * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.gelu(self.depth(self.expand(self.norm(x)))))


class UserNet(nn.Module):
    """Functional ops, a depthwise convolution, blocks in a `ModuleList`."""

    def __init__(self, width: int, depth: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 1)
        self.mixers = nn.ModuleList(Mixer(width) for _ in range(depth))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for mixer in self.mixers:
            h = mixer(h)
        return self.head(torch.tanh(F.avg_pool2d(h, 2)).mean(dim=(2, 3)))


def _mlp(norm: str) -> Callable[..., nn.Module]:
    return lambda width=8, depth=2: MLP(SHAPE, CLASSES, width, depth, norm)


def gpt(width: int = 16, depth: int = 2, heads: int = 2, **more: Any) -> GPT:
    """A tiny one with heads of 8; `hidden` is 64 whatever the width."""
    return GPT(CONTEXT, VOCABULARY, width, depth, heads, **{"head_size": 8, "hidden": 64} | more)


def tied_gpt(width: int = 16, depth: int = 2, heads: int = 2, **more: Any) -> GPT:
    """The other options: layer norms, learned positions, SwiGLU, a tied head."""
    other = {"norm": "layer", "positions": "learned", "mlp": "swiglu", "tied": True}
    return gpt(width, depth, heads, **other | more)


def vit(width: int = 16, depth: int = 2, heads: int = 2, hidden: int = 64) -> ViT:
    return ViT(SHAPE, CLASSES, 2, width, depth, heads, hidden)


QUICK = {"steps": 2, "candidates": 2, "iterations": 3}  # of operators that look for values
TRANSFORMERS = ("gpt", "tied", "vit")
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp_none": _mlp("none"),
    "mlp_batch": _mlp("batch"),
    "mlp_layer": _mlp("layer"),
    "cnn": lambda width=8, depth=1: CNN(SHAPE, CLASSES, width, depth, stages=2),
    "resnet": lambda width=4, depth=1: ResNet(SHAPE, CLASSES, width, depth, stages=2),
    "flat": lambda width=4: FlatNet(width),
    "user": lambda width=4, depth=1: UserNet(width, depth),
    "gpt": gpt,
    "tied": tied_gpt,
    "vit": vit,
}


def lively(model: nn.Module, seed: int = 1) -> nn.Module:
    """The network in float64 with no neutral gain, zero bias or unit variance left."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.double().state_dict().items():
        if tensor.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=generator).double() + low)
    return model


def a_model(name: str, **sizes: int) -> nn.Module:
    torch.manual_seed(0)
    return lively(MODELS[name](**sizes))


def a_probe(samples: int = 24, shape: tuple[int, ...] = SHAPE) -> Probe:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
    return Probe(x, torch.arange(samples) % CLASSES)


def a_text(samples: int = 6) -> Probe:
    """Tokens, each to be told from those before it."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(VOCABULARY, (samples, CONTEXT[0] + 1), generator=generator)
    return Probe(x[:, :-1], x[:, 1:])


def a_host(name: str, **sizes: int) -> Host:
    """A network that is known how to build, where the size of its stacks is a setting."""
    template = no_template if name == "flat" else lambda: MODELS[name](**{**sizes, "depth": 1})
    return Host(a_model(name, **sizes), a_text() if reads_text(name) else a_probe(), template)


def reads_text(name: str) -> bool:
    return name in ("gpt", "tied")


def changed(before: nn.Module, after: nn.Module, x: Tensor, training: bool = False) -> float:
    """max |Δ output|; both networks stay as they are."""
    if not training:
        return float((evaluate(before, x) - evaluate(after, x)).abs().max())
    with torch.no_grad():
        outputs = [copy.deepcopy(model).train()(x) for model in (before, after)]
    return float((outputs[0] - outputs[1]).abs().max())


def an_event(edit: Edit, alpha: float = 0.0) -> Event:
    """A growth that is being blended in."""
    return Event(
        0, "grown", "", edit, Moment(), Phase.WARMUP, Moment(), edit.slabs(), edit.blocks(),
        0, 0, 0.0, 0.0, False, 0.0, None, alpha=alpha, inserted=edit.inserted(),
    )  # fmt: skip


@dataclass(frozen=True)
class ByHand:
    """An operator that makes the edit it is told and fills nothing, or what it is told."""

    edit: Edit
    filling: Callable[[Grown], None] = lambda grown: None
    preserves: bool = False
    shares = False

    def propose(self, host: Host) -> Edit:
        return self.edit

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        self.filling(grown)

    def flops(self, grown: Grown) -> float:
        return 0.0


@dataclass(frozen=True)
class AtSteps:
    """Grows at given steps, whatever is still alive."""

    stages: Mapping[int, Operator] = field(default_factory=lambda: dict[int, Operator]())
    start: Mapping[str, int | float] = field(default_factory=lambda: dict[str, int | float]())
    consolidation: str = "0steps"
    keep_if: str | None = None

    @property
    def consolidate(self) -> Duration:
        return Duration.parse(self.consolidation, "consolidation")

    def upcoming(self, run: Run) -> Stage | StopReason:
        left = list(self.stages.values())[len(run.events) :]
        return Stage("grown", left[0]) if left else StopReason.STAGES_DONE

    def next(self, run: Run) -> Stage | StopReason | None:
        due = [step for step in self.stages if step <= run.clock.step]
        return self.upcoming(run) if len(due) > len(run.events) else None


class Watch:
    """A reporter that calls back after every step and growth."""

    def __init__(self) -> None:
        self.on_step: Callable[[Run], None] = lambda run: None

    def stepped(self, run: Run, loss: Tensor) -> None:
        self.on_step(run)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


def a_set_of_text(samples: int = 96) -> Sets:
    """Every token is the last but one, three further on, but for a few."""
    generator = torch.Generator().manual_seed(5)
    x_NT = torch.randint(VOCABULARY, (samples, CONTEXT[0] + 1), generator=generator)
    for t in range(2, x_NT.shape[1]):
        known = torch.rand(samples, generator=generator) < 0.8
        x_NT[known, t] = (x_NT[known, t - 2] + 3) % VOCABULARY
    train, validation = split_off(x_NT[:, :-1], x_NT[:, 1:], 0.25, seed=0)
    return Sets(train, validation, None, lambda raw: raw)  # type: ignore[arg-type]


def a_set(samples: int = 96, classes: int = CLASSES) -> Sets:
    """Labels by a noisy linear teacher; float64, as the networks are."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, *SHAPE, generator=generator, dtype=torch.float64)
    x_NF = x.flatten(1)
    teacher_FK = torch.randn(x_NF.shape[1], classes, generator=generator, dtype=torch.float64)
    noise_NK = torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    y = (x_NF @ teacher_FK + noise_NK).argmax(1)
    train, validation = split_off(x, y, 0.25, seed=0)
    return Sets(train, validation, None, lambda raw: raw)  # type: ignore[arg-type]


def a_machine(
    model: nn.Module,
    recipe: OptimizerRecipe,
    warmup: Warmup | None = None,
    growth: AtSteps | None = None,
    sets: Sets | None = None,
    policy: StatePolicy | None = None,
    settle: Settle | None = None,
    **train: Any,
) -> Machine:
    """A run of 1000 steps at its start; nothing is written anywhere."""
    training = Training(**{"duration": "1000steps", "batch_size": 16} | train)
    sets = sets or a_set()
    batches = Batches(sets, 0, torch.device("cpu"))
    x, y = batches.at(0, 24)
    setup = Setup(
        model_factory=lambda start: model,
        growth=growth or AtSteps(),
        warmup=warmup or NoWarmup(),
        settle=settle or NoSettling(),
        scheduler=Constant(),
        at_growth=Continue(),
        optimizer=recipe,
        optimizer_state=policy or AsymmetricState(),
        batches=batches,
        engine=CPU(deterministic=False).open(),
        train=training,
        stop=Stopping(),
        checkpoint=Checkpoints(),
        reporter=Watch(),  # type: ignore[arg-type]
        save=lambda run: None,
        interrupted=lambda: False,
    )
    run = Run(
        seed=0,
        clock=Clock(Duration.parse(training.duration, "duration"), len(sets.train)),
        model=model.train(),
        optimizer=recipe.build(dict(model.named_parameters()), frozenset()),
        probe=Probe(x, y),
        metric="val/accuracy",
        mode="max",
        params=num_params(model),
        flops=training_flops(model, x),
        batch_size=training.batch_size * training.accumulate,
    )
    return Machine(run, setup)


def train(machine: Machine, steps: int) -> None:
    """Optimizer steps as the machine takes them, growing nothing."""
    for _ in range(steps):
        machine.stepper.step()


def grow_now(machine: Machine, operator: Operator) -> Event:
    """A growth as the machine does it."""
    machine._stage = Stage("grown", operator)
    machine._grow()
    return machine.run.events[-1]


def snapshot(machine: Machine) -> dict[str, Tensor]:
    """Every tensor of the run by name: weights, buffers, optimizer state."""
    run = machine.run
    weights = {f"model/{name}": t for name, t in run.model.state_dict().items()}
    states = {
        f"optimizer/{name}/{key}": tensor
        for name in run.optimizer.parameters
        for key, tensor in run.optimizer.state_of(name).items()
    }
    return {name: tensor.detach().clone() for name, tensor in (weights | states).items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Equal bit for bit, under the same names."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def old_part(grown: Tensor, old: Tensor, inner: int = 1) -> Tensor:
    """The corner of a grown tensor that has the old one's shape; columns are `inner` each."""
    if inner > 1 and old.ndim > 1:
        kept = old.shape[1] // inner
        return grown.unflatten(1, (-1, inner))[: old.shape[0], :kept].flatten(1)
    return grown[tuple(slice(0, size) for size in old.shape)]
