"""How what is new joins: ramps, slow rates, a frozen host, a silent start."""

from __future__ import annotations

import copy
from itertools import pairwise
from math import cos, exp, pi
from typing import Any

import pytest
import torch
from growth_kit import (  # noqa: F401
    AtSteps,
    a_host,
    a_machine,
    a_model,
    a_probe,
    a_set_of_text,
    an_event,
    changed,
    grow_now,
    make,
    old_part,
    one_thread,
    options,
    reads_text,
    same,
    snapshot,
    train,
)
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.contracts import Operator, Strength
from progtrain.errors import GrowthError, SettingError
from progtrain.evaluation import evaluate
from progtrain.growth.controls import Controls, new_modules
from progtrain.growth.grow import Host, grow
from progtrain.growth.identity import silence_newborn
from progtrain.growth.operators.deepen_identity import DeepenIdentity
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.insert_attention import InsertAttention
from progtrain.growth.operators.insert_branch import InsertBranch
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.widen_space import Slab
from progtrain.machine import Machine
from progtrain.run import Event, Phase
from progtrain.warmups.frozen_host import FrozenHost
from progtrain.warmups.linear_ramp import LinearRamp
from progtrain.warmups.lr import LearningRateWarmup

RAMPS = [name for name in options("warmup") if make("warmup", name).blends]
FORMULAS = {
    "linear_ramp": lambda p: p,
    "cosine_ramp": lambda p: (1 - cos(pi * p)) / 2,
    "exponential_ramp": lambda p: (1 - exp(-5 * p)) / (1 - exp(-5)),
}
STEPS = 8


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def alphas_of(machine: Machine) -> dict[int, float]:
    """What the gates on the network hold, by event."""
    return {index: float(alpha) for index, alpha in machine.stepper.controls._alphas.items()}


# Ramps


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_goes_from_exactly_0_to_exactly_1_by_its_formula(name: str) -> None:
    ramp = make("warmup", name)
    points = [i / 200 for i in range(201)]
    alphas = [ramp.strength(Phase.WARMUP, p).alpha for p in points]
    assert alphas[0] == 0.0 and alphas[-1] == 1.0
    assert all(a < b for a, b in pairwise(alphas))
    assert alphas == pytest.approx([FORMULAS[name](p) for p in points], abs=1e-15)
    assert ramp.preserves and not ramp.zeroes
    assert set(ramp.lengths()) == {Phase.WARMUP}


@pytest.mark.parametrize("name", options("warmup"))
def test_everything_is_at_full_strength_when_its_warmup_is_over(name: str) -> None:
    warmup = make("warmup", name)
    for phase in warmup.lengths():
        assert warmup.strength(phase, 1.0) == Strength()
    assert warmup.strength(Phase.CONSOLIDATE, 0.3) == Strength()


@pytest.mark.parametrize("name", options("warmup"))
@pytest.mark.parametrize("length", ["0steps", "0%", "8", "-3steps", "longsteps"])
def test_a_length_that_is_none_is_refused(name: str, length: str) -> None:
    takes = {"length", "isolation"} & set(make("warmup", name).__dataclass_fields__)
    for setting in takes:
        with pytest.raises(SettingError, match=setting):
            make("warmup", name, **{setting: length})


@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("operator", [WidenRandom(), DeepenRandom()])
def test_a_ramp_counts_optimizer_steps_and_not_forward_calls(
    name: str, accumulate: int, operator: Operator
) -> None:
    """Also: the first step is above 0, the last one at exactly 1, and then the gates are gone."""
    ramp = make("warmup", name, length=f"{STEPS}steps")
    recipe = make("optimizer", "sgd", lr=0.01)
    machine = a_machine(a_model("mlp_batch"), recipe, ramp, batch_size=8, accumulate=accumulate)
    train(machine, 2)
    event = grow_now(machine, operator)
    assert event.phase is Phase.WARMUP and event.alpha == 0.0 == alphas_of(machine)[0]
    seen: list[float] = []
    watch = machine.run.model.register_forward_hook(
        lambda *_: seen.append(alphas_of(machine).get(0, 1.0))
    )
    train(machine, STEPS)
    wanted = [FORMULAS[name]((step + 1) / STEPS) for step in range(STEPS)]
    assert seen == pytest.approx([a for a in wanted for _ in range(accumulate)], abs=1e-7)
    assert seen[0] > 0 and seen[-accumulate:] == [1.0] * accumulate
    watch.remove()
    assert machine.run.events[0].phase is Phase.INTEGRATED and machine.run.events[0].alpha == 1.0
    assert hooks(machine.run.model) == 0


@pytest.mark.parametrize("operator", [WidenRandom(), DeepenRandom()])
def test_gates_change_no_module_and_no_key(operator: Operator) -> None:
    machine = a_machine(a_model("mlp_batch"), make("optimizer", "sgd"), LinearRamp("4steps"))
    grow_now(machine, operator)
    model = machine.run.model
    plain = a_model("mlp_batch")
    machine.run.events[0].edit.apply(plain)
    for left in (3, 2, 1, 0):
        train(machine, 1)
        assert list(model.state_dict()) == list(plain.state_dict()) and str(model) == str(plain)
        assert (hooks(model) > 0) == (left > 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def ungated(machine: Machine) -> nn.Module:
    """The same network with the gates' factors worked into its weights; widened parts only."""
    plain = a_model("mlp_none")
    for event in machine.run.events:
        event.edit.apply(plain)
    plain.load_state_dict(machine.run.model.state_dict())
    for event in machine.run.living:
        for slab in event.slabs:
            if slab.consumer:
                w = plain.get_parameter(slab.tensor).detach()
                slab.write(w, slab.read(w) * event.alpha)
    return plain


def test_evaluation_sees_the_network_at_the_alpha_that_training_has_now() -> None:
    machine = a_machine(a_model("mlp_none"), make("optimizer", "sgd"), LinearRamp("8steps"))
    train(machine, 2)
    event = grow_now(machine, WidenRandom())
    assert event.metric_after == event.metric_before, "a silent start changes no metric"
    run, split = machine.run, machine.setup.batches.sets.validation
    for _ in range(3):
        train(machine, 1)
    assert run.events[0].alpha == 3 / 8
    got = evaluate(run, machine.setup, split, "val")["val/loss"]
    with torch.no_grad():
        want = F.cross_entropy(ungated(machine)(split.x).float(), split.y)
        open_gates = copy.deepcopy(ungated(machine))
        open_gates.load_state_dict(run.model.state_dict())
        whole = F.cross_entropy(open_gates(split.x).float(), split.y)
    assert got == pytest.approx(float(want), abs=1e-6)
    assert abs(got - float(whole)) > 1e-3


def test_two_growths_that_overlap_have_an_alpha_each() -> None:
    """Both widen the same space, the second while the first is half-way in."""
    growth = AtSteps({2: WidenRandom(), 6: WidenZero(factor=1.5)})
    recipe = make("optimizer", "sgd", lr=0.01)
    machine = a_machine(a_model("mlp_none"), recipe, LinearRamp("8steps"), growth)
    seen: dict[int, dict[int, float]] = {}
    machine.setup.reporter.on_step = lambda run: seen.update(  # type: ignore[attr-defined]
        {run.clock.step: {e.index: e.alpha for e in run.events}}
    )
    for _ in range(2):
        train(machine, 2 if not machine.run.events else 4)
        grow_now(machine, growth.stages[machine.run.clock.step])
    first, second = machine.run.living
    assert second.preservation_error <= 1e-12 and (first.alpha, second.alpha) == (0.5, 0.0)
    train(machine, 3)
    assert seen[9] == {0: 7 / 8, 1: 3 / 8} == alphas_of(machine)
    x = machine.run.probe.x
    assert changed(ungated(machine), machine.run.model, x) <= 1e-6  # alphas are float32
    again = copy.deepcopy(ungated(machine))
    again.load_state_dict(machine.run.model.state_dict())
    controls = Controls(again, machine.run.events, machine.setup.warmup)
    assert changed(again, machine.run.model, x) <= 1e-12, "a resumed run has the same gates"
    controls.lift()
    train(machine, 5)
    assert seen[10] == {0: 1.0, 1: 0.5} and seen[14] == {0: 1.0, 1: 1.0}
    assert hooks(machine.run.model) == 0


def test_a_ramp_and_a_block_that_join_one_after_the_other_do_not_disturb_each_other() -> None:
    machine = a_machine(a_model("mlp_batch"), make("optimizer", "adamw"), LinearRamp("8steps"))
    for operator in (WidenRandom(), DeepenRandom(), WidenRandom()):
        assert grow_now(machine, operator).preservation_error <= 1e-12
        train(machine, 3)
    assert [event.alpha for event in machine.run.events] == [1.0, 6 / 8, 3 / 8]


# Isolated from the host


@pytest.mark.parametrize(
    ("name", "operator"),
    [(n, WidenRandom()) for n in ("mlp_none", "mlp_batch", "cnn", "flat", "user")]
    + [(n, WidenRandom("*:heads")) for n in ("gpt", "vit")]
    + [(n, DeepenRandom()) for n in ("mlp_batch", "resnet", "gpt")]
    + [("mlp_none", InsertBranch()), ("gpt", InsertAttention(place="beside"))],
)
def test_an_isolated_part_passes_no_gradient_on_to_its_host(name: str, operator: Operator) -> None:
    """What the new part computes hangs on none of the host's weights, and does without isolation;
    the values are the same."""
    host = a_host(name)
    grown = grow(host, operator, 0)
    event = an_event(grown.edit, alpha=0.5)
    for path in event.inserted:  # they begin silent
        for parameter in grown.model.get_submodule(path).parameters():
            nn.init.normal_(parameter)
    masks = {n: ~is_new(n, p, event) for n, p in grown.model.named_parameters()}
    old = [p for n, p in grown.model.named_parameters() if masks[n].any()]
    kept = [mask for mask in masks.values() if mask.any()]
    reached, outputs = dict[bool, int](), dict[bool, Tensor]()
    for isolated in (True, False):
        controls = Controls(grown.model, [event], LinearRamp("8steps", isolated))
        new, outputs[isolated] = computed(grown.model, event, host.probe.x)
        grads = zip(torch.autograd.grad(new, old, allow_unused=True), kept, strict=True)
        reached[isolated] = sum(g is not None and bool(g[mask].any()) for g, mask in grads)
        controls.lift()
    assert reached[True] == 0 < reached[False]
    assert (outputs[True] - outputs[False]).abs().max() <= 1e-12


def is_new(name: str, parameter: nn.Parameter, event: Event) -> Tensor:
    if name.startswith(new_modules(event)):
        return torch.ones_like(parameter, dtype=torch.bool)
    return new_mask(event, name, parameter.detach())


def computed(model: nn.Module, event: Event, x: Tensor) -> tuple[Tensor, Tensor]:
    """A sum over what new units and modules compute, and the network's output."""
    parts: list[Tensor] = []

    def take_all(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        parts.append(out.sin().sum())

    def take_new(slab: Slab) -> Any:
        rows_F = slab.mask(model.get_parameter(slab.tensor).detach()).flatten(1).any(1)

        def hook(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
            units = out if isinstance(module, nn.Linear) else out.transpose(1, -1)
            parts.append(units[..., rows_F].sin().sum())

        return hook

    handles = [model.get_submodule(n).register_forward_hook(take_all) for n in event.inserted]
    handles += [  # what a block computes, before it is blended
        model.get_submodule(n).register_forward_hook(take_all, prepend=True) for n in event.blocks
    ]
    for slab in event.slabs:
        layer = model.get_submodule(slab.tensor.rpartition(".")[0])
        plain = isinstance(layer, nn.Linear) or getattr(layer, "groups", 0) == 1
        if slab.producer and plain and slab.tensor.endswith("weight"):
            handles.append(layer.register_forward_hook(take_new(slab)))
    out = model.eval()(x)
    for handle in handles:
        handle.remove()
    return torch.stack(parts).sum(), out.detach()


@pytest.mark.parametrize(
    ("name", "space"), [("gpt", "embedding"), ("tied", "embedding#2"), ("mlp_layer", "stem")]
)
def test_units_that_a_norm_mixes_with_old_ones_cannot_be_isolated(name: str, space: str) -> None:
    sets = a_set_of_text() if reads_text(name) else None
    ramp = LinearRamp("8steps", isolated=True)
    machine = a_machine(a_model(name), make("optimizer", "sgd"), ramp, sets=sets)
    before = snapshot(machine)
    with pytest.raises(GrowthError, match=r"warmup\.isolated=true cannot isolate .* norm"):
        grow_now(machine, WidenRandom(space))
    assert same(before, snapshot(machine))


class RawWeights(nn.Module):
    """Two layers whose weights are parameters of the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.head = nn.Parameter(torch.randn(8, 16)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.linear(x.flatten(1), self.up)))


def test_weights_that_no_layer_holds_cannot_be_isolated() -> None:
    ramp = LinearRamp("8steps", isolated=True)
    machine = a_machine(RawWeights().double(), make("optimizer", "adamw"), ramp)
    with pytest.raises(GrowthError, match="RawWeights computes new and old units in one"):
        grow_now(machine, WidenRandom())


# Learning rate


@pytest.mark.parametrize("recipe", options("optimizer"))
def test_new_entries_are_slowed_under_every_optimizer_and_old_ones_are_not(recipe: str) -> None:
    warmups = (None, LearningRateWarmup("10steps", zero_output=False))
    machines = [a_machine(a_model("mlp_batch"), make("optimizer", recipe), w) for w in warmups]
    for machine in machines:
        train(machine, 3)
        grow_now(machine, WidenRandom())
    event, start = machines[0].run.events[0], snapshot(machines[0])

    def travelled(tensor: str) -> list[Tensor]:
        now = [machine.run.model.get_parameter(tensor).detach() for machine in machines]
        return [weight - start[f"model/{tensor}"] for weight in now]

    weights = [slab.tensor for slab in event.slabs if slab.tensor.endswith("linear.weight")]
    for machine in machines:
        train(machine, 1)
    for tensor in weights:
        whole, part = travelled(tensor)
        new = new_mask(event, tensor, whole)
        assert torch.equal(whole[~new], part[~new]), "old neighbours move exactly as without"
        assert whole[new].abs().max() > 0
        assert (whole[new] * 0.1 - part[new]).abs().max() <= 1e-12
    for machine in machines:
        train(machine, 5)
    for tensor in weights:
        whole, part = travelled(tensor)
        new = new_mask(event, tensor, whole)
        assert part[new].norm() < 0.75 * whole[new].norm(), tensor


def new_mask(event: Event, name: str, like: Tensor) -> Tensor:
    mask = torch.zeros_like(like, dtype=torch.bool)
    for slab in event.slabs:
        if slab.tensor == name:
            slab.write(mask, True)
    return mask


def test_new_entries_have_their_whole_rate_at_the_last_step_of_the_warmup() -> None:
    warmup = LearningRateWarmup("4steps")
    rates = [warmup.strength(Phase.WARMUP, (i + 1) / 4).newborn_rate for i in range(4)]
    assert rates == [0.25, 0.5, 0.75, 1.0]
    assert warmup.strength(Phase.WARMUP, 0.0) == Strength(newborn_rate=0.0)


# Frozen host


HOSTS = [("mlp_batch", WidenZero()), ("mlp_batch", DeepenIdentity()), ("cnn", DeepenIdentity())]
HOSTS += [("resnet", WidenZero()), ("resnet", DeepenIdentity()), ("mlp_layer", WidenZero())]


@pytest.mark.parametrize("recipe", options("optimizer"))
@pytest.mark.parametrize(("name", "operator"), HOSTS)
def test_a_frozen_host_keeps_every_bit_and_then_trains_again(
    recipe: str, name: str, operator: Any
) -> None:
    """Weights, optimizer state and running statistics, under weight decay and momentum."""
    recipe = make("optimizer", recipe, weight_decay=0.1)
    machine = a_machine(a_model(name), recipe, FrozenHost("4steps"))
    train(machine, 3)
    host = snapshot(machine)
    event = grow_now(machine, operator)
    start = snapshot(machine)
    for left in (3, 2, 1, 0):
        train(machine, 1)
        assert not moved(machine, start, host, event), left
    assert grew(machine, start, event), "what is new has learnt nothing"
    assert machine.run.events[0].phase is Phase.INTEGRATED
    train(machine, 1)
    useless = {"model/stem.bias", "model/blocks.0.linear.bias", "model/blocks.1.linear.bias"}
    weights = {key for key in host if key.startswith("model/")}
    if name == "mlp_batch":  # a batch norm takes back whatever the bias in front of it adds
        weights -= useless
    assert weights <= moved(machine, start, host, event)
    assert all(parameter.requires_grad for parameter in machine.run.model.parameters())


def moved(
    machine: Machine, start: dict[str, Tensor], host: dict[str, Tensor], event: Event
) -> set[str]:
    """What the host had and has no longer bit for bit, by the names it had in the host."""
    now, gone = snapshot(machine), set[str]()
    counted = {slab.tensor for slab in event.slabs}  # as a whole, by optimizers of torch's own
    for name, old in host.items():
        kind, _, rest = name.partition("/")
        tensor, slash, key = rest.partition("/")
        renamed = f"{kind}/{event.edit.rename(tensor)}{slash}{key}"
        single = renamed in start and start[renamed].ndim == 0
        if single and event.edit.rename(tensor) in counted:
            continue
        if renamed in start:  # our own step counts become one for each entry
            kept = old_part(now[renamed], old)
            if not torch.equal(kept, old_part(start[renamed], old)):
                gone.add(name)
    return gone


def grew(machine: Machine, start: dict[str, Tensor], event: Event) -> bool:
    parameters = dict(machine.run.model.named_parameters())
    inside = tuple(f"{block}." for block in event.blocks)
    new = {slab.tensor for slab in event.slabs if slab.tensor in parameters}
    new |= {name for name in parameters if name.startswith(inside)} if inside else set()
    return any(not torch.equal(parameters[name], start[f"model/{name}"]) for name in new)


def test_a_host_that_never_trained_gets_no_optimizer_state_while_it_is_frozen() -> None:
    machine = a_machine(a_model("mlp_none"), make("optimizer", "adamw"), FrozenHost("3steps"))
    grow_now(machine, WidenZero())
    train(machine, 3)
    for name, state in machine.run.optimizer.state_of("head.weight").items():
        assert not state[:, :8].any() and state[:, 8:].any(), name


# Silent starts


@pytest.mark.parametrize(
    ("name", "operator"),
    [(n, WidenRandom()) for n in ("mlp_none", "mlp_layer", "cnn", "resnet", "flat", "user")]
    + [(n, DeepenRandom()) for n in ("mlp_batch", "resnet", "user")],
)
def test_what_zero_init_has_zeroed_has_a_gradient_at_once(name: str, operator: Operator) -> None:
    host = Host(a_model(name), a_machine(a_model(name), make("optimizer", "sgd")).run.probe)
    grown = grow(host, operator, 0)
    before = {key: value.detach().clone() for key, value in grown.model.named_parameters()}
    silence_newborn(grown)
    F.cross_entropy(grown.model.train()(grown.x), host.probe.y).backward()
    silenced = 0
    for key, parameter in grown.model.named_parameters():
        zeroed = (parameter == 0) & (before[key] != 0)
        assert parameter.grad is not None
        assert not bool(zeroed.any()) or parameter.grad[zeroed].abs().max() > 0, key
        silenced += int(zeroed.sum())
    assert silenced > 0
