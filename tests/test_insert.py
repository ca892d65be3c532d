"""Modules that join the host's: exact at the growth, blended by alpha, part of all later growth."""

from __future__ import annotations

import copy
import json
import signal
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from growth_kit import (  # noqa: F401
    MODELS,
    a_host,
    a_machine,
    a_model,
    a_set_of_text,
    an_event,
    changed,
    grow_now,
    lively,
    make,
    one_thread,
    options,
    reads_text,
    same,
    snapshot,
    train,
)
from run_kit import at_step, differences, parts, resume, some, warming
from run_kit import options as conf_options
from run_kit import train as train_job
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.errors import GrowthError, NothingToGrowError, SettingError
from progtrain.growth.average import begin, follow
from progtrain.growth.causality import is_causal
from progtrain.growth.controls import Controls
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host, grow
from progtrain.growth.inserted import Attention, Inserted
from progtrain.growth.newborn import evaluate
from progtrain.growth.rollback import Before
from progtrain.growth.sites import sites
from progtrain.machine import Machine
from progtrain.report.words import growth
from progtrain.run import Phase, Probe

ADAMW = make("optimizer", "adamw")
PLACES = ("behind", "beside")
AT = "+growth.stages.{}={{_target_: progtrain.growth.schedule.At, at: {}steps, operator: ${{{}}}}}"
STAGES = (
    "growth.stages.deeper.at=3steps",
    "growth.stages.wider.at=6steps",
    AT.format("inserted", 10, "insert"),
    AT.format("again", 16, "widen"),
)
RAMPS = ("linear_ramp", "cosine_ramp", "exponential_ramp")


def operator(option: str, **changes: Any) -> Any:
    return make("insert", option, **({"rank": 2} | changes))


def attends(name: str) -> bool:
    """An MLP has no positions."""
    return not name.startswith("mlp")


def pairs() -> list[tuple[str, str]]:
    return [(m, o) for m in MODELS for o in options("insert") if o != "attention" or attends(m)]


def a_run(name: str, warmup: str = "none", **train: Any) -> Machine:
    sets = a_set_of_text() if reads_text(name) else None
    return a_machine(a_model(name), ADAMW, make("warmup", warmup), sets=sets, **train)


def trained(grown: Grown) -> Host:
    """The grown network after something has trained it: nothing of it is silent."""
    for parameter in grown.model.parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
        parameter.detach().add_(0.1 * noise)
    return Host(grown.model, grown.host.probe)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "option"), some(pairs(), 2))
def test_an_inserted_module_changes_nothing_at_the_growth(
    name: str, option: str, place: str
) -> None:
    host = a_host(name)
    grown = grow(host, operator(option, place=place), 1)
    assert grown.edit.inserted()
    assert changed(host.model, grown.model, host.probe.x) <= 1e-12
    assert changed(host.model, grow(host, operator(option, place=place, silent=False), 1).model,
                   host.probe.x) > 1e-3  # fmt: skip


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=5)


def of_torchvision(name: str) -> nn.Module:
    import torchvision.models

    return swin() if name == "swin" else getattr(torchvision.models, name)(num_classes=5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) for n in ("swin", "resnet18", "mobilenet_v3_small")],
)
def test_networks_of_torchvision_take_modules_and_grow_on(name: str) -> None:
    torch.manual_seed(0)
    model = lively(of_torchvision(name))
    host = Host(model, Probe(torch.randn(3, 3, 32, 32).double(), torch.arange(3)))
    pairs = list(zip(options("insert"), cycle(PLACES), strict=False))
    for option, place in pairs:  # all pairs on networks of ours, above
        grown = grow(host, operator(option, place=place), 1)
        assert changed(host.model, grown.model, host.probe.x) <= 1e-12
    assert {place for _, place in pairs} == set(PLACES)
    wider = grow(trained(grown), make("widen", "zero"), 2)
    assert any("inserted" in c.describe() for c in wider.edit.changes)
    assert changed(grown.model, wider.model, host.probe.x) <= 1e-11


def test_features_are_where_the_network_has_them() -> None:
    """Swin's maps are (batch, height, width, features), those of others (batch, features, …)."""
    torch.manual_seed(0)
    x = torch.randn(3, 3, 32, 32).double()
    found = {s.module: s for s in sites(Host(swin().double(), Probe(x, x)), "behind")}
    assert found["features.1.0"].after == (3, 8, 8, 8) and found["features.3.0"].layer == "linear"
    assert found["features.3.0"].features("behind") == (16, 16)
    cnn = {s.module: s for s in sites(a_host("cnn"), "beside")}
    assert cnn["stages.0.entry"].layer == "conv2d"
    assert cnn["stages.0.entry"].features("beside") == (1, 8)


def test_a_module_beside_may_change_the_features() -> None:
    host = a_host("cnn")
    grown = grow(host, operator("adapter", place="beside", modules="stages.0.entry", rank=1), 1)
    assert changed(host.model, grown.model, host.probe.x) == 0
    assert grown.model.get_parameter("stages.0.entry.inserted.down.weight").shape == (1, 1, 1, 1)
    with pytest.raises(GrowthError, match=r"makes 4 × 4 positions 2 × 2; try place=behind"):
        grow(host, operator("branch", place="beside", modules="stages.1.entry"), 1)
    grow(host, operator("branch", place="behind", modules="stages.1.entry"), 1)


@pytest.mark.parametrize("warmup", RAMPS)
@pytest.mark.parametrize("place", PLACES)
def test_a_ramp_adds_alpha_times_the_module(warmup: str, place: str) -> None:
    host = a_host("gpt")
    grown = grow(host, operator("branch", place=place, silent=False, modules="blocks.1"), 1)
    wrapped = grown.model.get_submodule("blocks.1")
    assert isinstance(wrapped, Inserted)
    event = an_event(grown.edit, 0.25)
    x = torch.randn(2, 8, 16, dtype=torch.float64)
    controls = Controls(grown.model, [event], make("warmup", warmup))
    blended = wrapped(x)
    controls.lift()
    y = wrapped.host(x)
    added = wrapped.inserted(y if place == "behind" else x)
    torch.testing.assert_close(blended, y + 0.25 * added, rtol=0, atol=1e-12)
    assert float((wrapped(x) - y - added).abs().max().detach()) <= 1e-12


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("name", ["cnn", "gpt"])
def test_a_ramp_starts_exact_and_the_module_learns_from_its_first_step(
    name: str, silent: bool
) -> None:
    machine = a_run(name, "cosine_ramp")
    train(machine, 2)
    event = grow_now(machine, operator("branch", silent=silent))
    assert event.promised and event.preservation_error <= 1e-12
    last = [machine.run.model.get_parameter(f"{n}.out.weight") for n in event.inserted]
    before = [tensor.detach().clone() for tensor in last]
    train(machine, 1)
    assert 0 < machine.run.events[-1].alpha < 1
    assert all(not torch.equal(a.detach(), b) for a, b in zip(last, before, strict=True))


@pytest.mark.parametrize("warmup", ["zero_init", "lr", "frozen_host"])
@pytest.mark.parametrize("option", options("insert"))
def test_warmups_that_zero_silence_a_module_that_is_random(warmup: str, option: str) -> None:
    machine = a_run("vit", warmup)
    event = grow_now(machine, operator(option, silent=False))
    assert event.promised and event.preservation_error <= 1e-12
    for name in event.inserted:
        assert not machine.run.model.get_parameter(f"{name}.out.weight").any()
        assert any(p.any() for p in machine.run.model.get_submodule(name).parameters())


def test_random_modules_with_no_warmup_promise_nothing() -> None:
    event = grow_now(a_run("vit"), operator("branch", silent=False))
    assert not event.promised and event.preservation_error > 1e-3


@pytest.mark.parametrize("name", ["cnn", "gpt", "mlp_batch"])
@pytest.mark.parametrize("option", ["branch", "adapter"])
def test_a_frozen_host_keeps_every_bit_while_the_module_learns(name: str, option: str) -> None:
    machine = a_run(name, "frozen_host")
    train(machine, 2)
    grow_now(machine, operator(option))
    before = snapshot(machine)
    train(machine, 4)
    assert machine.run.events[-1].phase is Phase.ISOLATE
    after = snapshot(machine)
    moved = {n for n in after if n not in before or not torch.equal(after[n], before[n])}
    assert moved and all(".inserted." in name for name in moved)
    weights = {n.removeprefix("model/") for n in after if n.startswith("model/")}
    learned = {n for n, _ in machine.run.model.named_parameters() if ".inserted." in n}
    assert learned <= {n.removeprefix("model/") for n in moved} & weights


def test_the_updates_of_a_module_alone_are_slowed() -> None:
    machine = a_run("gpt", "lr")
    train(machine, 3)
    event = grow_now(machine, operator("adapter"))
    model, steps = machine.run.model, dict[str, float]()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(machine, 1)
    for name, parameter in model.named_parameters():
        steps[name] = float((parameter.detach() - before[name]).abs().max())
    rate = next(iter(machine.run.optimizer.groups()))["lr"]
    new = [steps[f"{name}.out.weight"] for name in event.inserted]
    assert all(0 < step < 0.1 * rate for step in new)
    assert steps["head.weight"] > 0.3 * rate


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "option"), some([p for p in pairs() if p[0] in ("cnn", "gpt", "vit")], 2)
)
def test_every_parameter_of_a_module_has_moved_after_three_steps(
    name: str, option: str, place: str, silent: bool
) -> None:
    machine = a_run(name, "none" if silent else "linear_ramp")
    train(machine, 2)
    event = grow_now(machine, operator(option, place=place, silent=silent))
    before = {n: p.detach().clone() for n, p in machine.run.model.named_parameters()}
    train(machine, 3)
    inside = tuple(f"{name}." for name in event.inserted)
    new = {n: p for n, p in machine.run.model.named_parameters() if n.startswith(inside)}
    assert len(new) >= 3 * len(event.inserted)
    assert [n for n, p in new.items() if torch.equal(p.detach(), before[n])] == []


@pytest.mark.parametrize("recipe", options("optimizer"))
def test_the_hosts_weights_and_optimizer_state_are_carried_exactly(recipe: str) -> None:
    machine = a_machine(a_model("mlp_batch"), make("optimizer", recipe), make("warmup", "none"))
    train(machine, 4)
    before = snapshot(machine)
    edit = grow_now(machine, operator("branch")).edit
    after = snapshot(machine)
    for key, tensor in before.items():
        group, _, rest = key.partition("/")
        name, slash, field = rest.rpartition("/") if group == "optimizer" else (rest, "", "")
        assert torch.equal(after[f"{group}/{edit.rename(name)}{slash}{field}"], tensor), key
    new = {k for k in after if ".inserted." in k and k.startswith("model/")}
    assert len(after) >= len(before) + len(new) > len(before)


def test_going_back_takes_the_module_out() -> None:
    machine = a_run("cnn", "cosine_ramp")
    train(machine, 3)
    kept, before = snapshot(machine), Before.of(machine.run)
    grow_now(machine, operator("attention"))
    train(machine, 3)
    before.restore(machine.run)
    assert same(snapshot(machine), kept)


def test_a_growth_that_breaks_its_promise_leaves_the_run_as_it_was() -> None:
    machine = a_run("cnn")
    train(machine, 2)
    kept = snapshot(machine)
    with pytest.raises(GrowthError, match="divide the 8 features"):
        grow_now(machine, operator("attention", heads=3))
    assert same(snapshot(machine), kept)


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("name", ["cnn", "gpt"])
def test_an_average_follows(name: str, silent: bool) -> None:
    host = a_host(name)
    average = lively(copy.deepcopy(host.model), seed=9)
    chosen = operator("branch", silent=silent)
    grown = grow(host, chosen, 3)
    followed = follow(average, grown, chosen, 3)
    for inserted in grown.edit.inserted():
        own, theirs = (m.get_submodule(inserted).state_dict() for m in (followed, grown.model))
        assert all(torch.equal(own[n], theirs[n]) for n in own)
    assert (changed(average, followed, host.probe.x) <= 1e-12) == silent
    assert not any(p.requires_grad for p in followed.parameters())


def test_an_average_trains_along() -> None:
    machine = a_run("gpt", ema=0.5)
    machine.run.average = begin(machine.run.model)
    train(machine, 2)
    event = grow_now(machine, operator("adapter"))
    train(machine, 3)
    assert machine.run.average is not None
    assert machine.run.average.get_parameter(f"{event.inserted[0]}.out.weight").any()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "option"), some([p for p in pairs() if p[0] != "flat"], 2))
def test_later_growth_goes_through_inserted_modules(name: str, option: str, place: str) -> None:
    host = trained(grow(a_host(name), operator(option, place=place), 1))
    wider = grow(host, make("widen", "zero"), 2)
    assert changed(host.model, wider.model, host.probe.x) <= 1e-11
    reads = {s.tensor for s in wider.edit.slabs() if ".inserted." in s.tensor}
    assert any(tensor.endswith("out.weight") for tensor in reads) and len(reads) > 3
    if name != "mlp_layer":  # a layer norm stands in the way with no insertion as well
        deeper = grow(host, make("deepen", "identity"), 3)
        assert changed(host.model, deeper.model, host.probe.x) <= 1e-9
        new = deeper.model.get_submodule(deeper.edit.blocks()[0])
        assert any(isinstance(module, Inserted) for module in new.modules())
    again = grow(host, operator("branch", place=place), 4)
    assert changed(host.model, again.model, host.probe.x) <= 1e-12


@pytest.mark.parametrize("name", ["cnn", "resnet", "mlp_batch", "mlp_none"])
def test_a_block_that_ends_in_a_relu_is_joined_before_it(name: str) -> None:
    """Also one that is new and still the identity, so that nothing in it is negative."""
    host = a_host(name)
    deeper = grow(host, make("deepen", "identity"), 1)
    joined = grow(Host(deeper.model, host.probe), operator("branch"), 2)
    blocks = {c.module.rpartition(".")[0] for c in joined.edit.changes}  # type: ignore[union-attr]
    assert set(deeper.edit.blocks()) < blocks
    again = grow(trained(joined), operator("branch"), 3)
    places = [name.removesuffix(".inserted") for name in again.edit.inserted()]
    assert sorted(f"{place}.host.inserted" for place in places) == sorted(
        again.edit.rename(name) for name in joined.edit.inserted()
    )
    deepest = grow(trained(again), make("deepen", "identity"), 4)
    size = float(evaluate(again.model, host.probe.x).abs().max())
    assert changed(again.model, deepest.model, host.probe.x) <= 1e-12 * size


@pytest.mark.parametrize(
    ("name", "warmup"),
    some([("gpt", "cosine_ramp"), ("cnn", "zero_init"), ("resnet", "frozen_host")], 3),
)
def test_growths_that_live_at_once_keep_to_their_own(name: str, warmup: str) -> None:
    machine = a_run(name, warmup)
    orders = [("deepen", "random"), ("insert", "branch"), ("insert", "adapter"), ("widen", "zero"),
              ("insert", "attention")]  # fmt: skip
    for group, option in orders:
        train(machine, 1)
        event = grow_now(machine, make(group, option, rank=2))
        assert event.promised and event.preservation_error <= 1e-10
    train(machine, 2)
    for event in machine.run.events:
        for new in (*event.blocks, *event.inserted):
            machine.run.model.get_submodule(new)
    names = [set(event.inserted) for event in machine.run.events]
    assert sum(map(len, names)) == len(set[str]().union(*names))


def test_a_module_is_replayed_and_taken_out_again() -> None:
    host = a_host("vit")
    grown = grow(host, operator("attention", modules="blocks.*.mlp|blocks.0"), 1)
    edit = Edit.from_json(json.loads(json.dumps(grown.edit.to_json())))
    assert edit == grown.edit
    again = a_model("vit")
    state = torch.get_rng_state()
    edit.apply(again)
    assert torch.equal(torch.get_rng_state(), state), "no random number of the run is drawn"
    assert all(module.training for module in again.modules())
    assert repr(again) == repr(grown.model)
    assert again.state_dict().keys() == grown.model.state_dict().keys()
    assert edit.rename("blocks.0.mlp.up.weight") == "blocks.0.host.mlp.host.up.weight"
    assert edit.rename("blocks.10.norm1.weight") == "blocks.10.norm1.weight"
    assert edit.inserted()[-1] == "blocks.0.inserted"
    edit.revert(again)
    assert repr(again) == repr(host.model)


@pytest.mark.parametrize("causal", ["auto", True])
@pytest.mark.parametrize("name", ["gpt", "tied"])
def test_attention_in_a_decoder_sees_no_future_token(name: str, causal: bool | str) -> None:
    host = a_host(name)
    grown = grow(host, operator("attention", causal=causal, silent=False), 1)
    x = host.probe.x
    for t in range(1, x.shape[1]):
        other = x.clone()
        other[:, t:] = (other[:, t:] + 1) % 11
        moved = (evaluate(grown.model, x) - evaluate(grown.model, other)).abs().amax((0, 2))
        assert float(moved[:t].max()) <= 1e-12 and float(moved[t]) > 1e-6
    with pytest.raises(GrowthError, match=r"insert\.causal=false would show"):
        grow(host, operator("attention", causal=False), 1)


def test_attention_in_an_encoder_sees_all_unless_told_otherwise() -> None:
    host = a_host("vit")
    assert not is_causal(host) and is_causal(a_host("gpt"))
    for wanted, causal in ((False, "auto"), (True, True), (False, False)):
        grown = grow(host, operator("attention", causal=causal), 1)
        found = [m for m in grown.model.modules() if isinstance(m, Attention)]
        assert found and all(module.causal is wanted for module in found)


def test_a_decoder_that_masks_by_hand_is_causal_too() -> None:
    host = Host(ByHand().double(), Probe(torch.arange(24).reshape(4, 6) % 11, torch.zeros(4)))
    assert is_causal(host)
    with torch.no_grad():
        host.model.get_buffer("mask").fill_(False)
    assert not is_causal(host)


class ByHand(nn.Module):
    """Attention as the first GPTs wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 11)
        self.register_buffer("mask", torch.ones(6, 6).triu(1).bool())

    def forward(self, x_BT: Tensor) -> Tensor:
        h = self.embedding(x_BT)
        q, k, v = self.qkv(h).chunk(3, -1)
        weights = (q @ k.mT).masked_fill(self.mask, -torch.inf).softmax(-1)
        return self.head(h + weights @ v)


class Peeking(nn.Module):
    """A network that reads attributes of its parts, one of them behind their back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(16, 6), nn.Tanh())
        self.called = nn.Linear(6, 6)
        self.bypassed = nn.Linear(6, 6)
        self.pair = nn.LSTM(6, 6, batch_first=True)
        self.cutting = nn.ReLU(inplace=True)
        self.turned = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x.flatten(1)) * self.stem[0].out_features
        h = torch.tanh(self.called(h) * self.called.weight.sum())
        h = F.linear(h, self.bypassed.weight, self.bypassed.bias)
        h = self.cutting(self.pair(h[:, None])[0])
        return self.head(self.turned(h.transpose(0, 1))[0])


def peeking() -> Host:
    torch.manual_seed(0)
    x = torch.randn(6, 1, 4, 4, dtype=torch.float64)
    return Host(Peeking().double(), Probe(x, torch.arange(6) % 3))


@pytest.mark.parametrize("name", ["stem", "called", "called|stem"])
def test_attributes_and_items_of_a_wrapped_module_are_the_hosts(name: str) -> None:
    host = peeking()
    grown = grow(host, operator("branch", modules=name), 1)
    assert changed(host.model, grown.model, host.probe.x) == 0
    for model in (copy.deepcopy(grown.model), torch.compile(grown.model, backend="eager")):
        assert changed(host.model, model, host.probe.x) == 0


@pytest.mark.parametrize("option", options("insert"))
def test_a_wrapped_network_is_compiled_and_exported_whole(option: str) -> None:
    host = a_host("gpt")
    model = grow(host, operator(option, silent=False), 1).model.eval()
    x = host.probe.x
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    exported = torch.export.export(copy.deepcopy(model), (x,)).module()
    with torch.no_grad():
        for made in (compiled, exported):
            torch.testing.assert_close(made(x), model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("model", "option", "changes", "words"),
    [
        ("peek", "branch", {"modules": "bypassed"}, "bypassed: the network never calls it"),
        ("peek", "branch", {"modules": "pair"}, "it returns a tuple, not one tensor"),
        ("peek", "branch", {"modules": "turned"}, "its first dimension is not the batch"),
        ("peek", "branch", {"modules": "cutting", "place": "beside"}, "it writes into its input"),
        ("peek", "branch", {"modules": "caled"}, "Did you mean 'called'.* Modules: stem"),
        ("peek", "attention", {"modules": "called", "heads": 2}, "no positions in called"),
        ("peek", "adapter", {"modules": "called", "rank": 7}, "rank=7 is no bottleneck.*at most 6"),
        ("cnn", "attention", {"heads": 3}, "heads=3 does not divide the 8 .* one of 1, 2, 4, 8"),
        ("gpt", "branch", {"modules": "embedding", "place": "beside"}, "try place=behind"),
        ("gpt", "branch", {"modules": "blocks.7"}, "Did you mean 'blocks.1'"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_words(
    model: str, option: str, changes: dict[str, Any], words: str
) -> None:
    host = peeking() if model == "peek" else a_host(model)
    with pytest.raises(GrowthError, match=words):
        grow(host, operator(option, **changes), 1)


def test_a_network_that_uses_weights_behind_a_modules_back_is_refused() -> None:
    """In evaluation torch computes a whole encoder layer in one call, with its layers' weights."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 3)).double()
    host = Host(model, Probe(torch.randn(4, 5, 4).double(), torch.zeros(4, 5)))
    with pytest.raises(GrowthError, match=r"weights of 1\.linear1 and does not call it"):
        grow(host, operator("branch", modules="1.linear1"), 1)
    grown = grow(host, operator("branch", modules="1"), 1)
    assert changed(host.model, grown.model, host.probe.x) <= 1e-12


def test_a_network_with_nothing_to_join_says_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    x = torch.randn(4, 1, 4, 4).double()
    with pytest.raises(NothingToGrowError, match=r"Name others by insert\.modules: 0, 1\."):
        grow(Host(model, Probe(x, torch.zeros(4))), operator("branch"), 1)


@pytest.mark.parametrize(
    ("option", "changes", "words"),
    [
        ("branch", {"place": "above"}, "place must be one of behind, beside"),
        ("branch", {"factor": 0}, "factor must be in"),
        ("branch", {"size": 0}, "size must be a whole number"),
        ("adapter", {"rank": 0}, "rank must be a whole number"),
        ("attention", {"heads": 0}, "heads must be a whole number"),
        ("attention", {"causal": "maybe"}, "causal must be auto, true or false"),
        ("attention", {"modules": " "}, "modules must be auto, or names"),
    ],
)
def test_settings_out_of_bounds_are_refused(
    option: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        operator(option, **changes)


def test_the_screen_names_what_joins() -> None:
    machine = a_run("gpt")
    event = grow_now(machine, operator("adapter"))
    assert (
        growth(machine.run, event).what == "+1 adapter behind blocks.0, +1 adapter behind blocks.1"
    )


@pytest.mark.parametrize("stop", some([12, 10, 17], 3))
@pytest.mark.parametrize("warmup", conf_options("warmup"))
def test_a_run_stopped_in_the_life_of_a_module_ends_with_the_same_bits(
    warmup: str, stop: int, tmp_path: Path
) -> None:
    ramp = warming(warmup, "3steps")
    made = parts("growth=schedule", *STAGES, "train.ema=0.9", "insert.silent=false", *ramp)
    whole = train_job(made, tmp_path / "whole")
    assert any(".inserted." in name for name in whole.bits if name.startswith("model/"))
    told = (tmp_path / "whole" / "events.jsonl").read_text()
    assert "+1 branch behind" in told
    train_job(made, tmp_path / "cut", at_step(stop, lambda: signal.raise_signal(signal.SIGINT)))
    assert differences(whole, resume(made, tmp_path / "cut")) == []
