"""Deepening: orders as tables, copies bit for bit, halved branches, first blocks from none."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from growth_kit import (  # noqa: F401
    CONF,
    MODELS,
    TRANSFORMERS,
    a_host,
    a_machine,
    a_model,
    a_set,
    a_set_of_text,
    changed,
    grow_now,
    make,
    one_thread,
    options,
    reads_text,
    snapshot,
    train,
)
from rich.console import Console
from run_kit import at_step, differences, parts, resume, some
from run_kit import train as train_job
from torch import Tensor, nn

from progtrain.errors import GrowthError, NothingToGrowError, SettingError
from progtrain.growth.average import begin
from progtrain.growth.edits import Edit
from progtrain.growth.empty_stacks import first_blocks
from progtrain.growth.first_block import FirstBlock, build, with_blocks
from progtrain.growth.grow import Host, grow
from progtrain.growth.insert_block import InsertBlock
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators import orders
from progtrain.growth.operators.deepen_interleave_half import families
from progtrain.growth.rollback import Before
from progtrain.machine import Machine
from progtrain.report.plan import print_things_that_grow
from progtrain.run import Probe

COPYING = ("stack", "interleave", "interleave_half", "middle", "last")
FROM_NONE = ("random", "identity")
STACKED = [name for name in MODELS if name != "flat"]
RESIDUAL = ("resnet", "user", *TRANSFORMERS)
BUILT_IN = ("mlp_batch", "cnn", "resnet", "vit", "gpt", "tied")
EXACT = 1e-12
SGD = make("optimizer", "sgd", lr=0.01)
NONE = "growth.start.depth=0"


# ---- orders -------------------------------------------------------------------------------------


def order_of(order: orders.Order, length: int, add: int) -> str:
    """What stands where afterwards: letters are old blocks, capitals copies of them."""
    row = [chr(ord("a") + i) for i in range(length)]
    for at, source in order(length, add):
        row.insert(at, row[source].upper())
    return "".join(row)


@pytest.mark.parametrize(
    ("order", "length", "add", "wanted"),
    [
        (orders.stack, 1, 1, "aA"),
        (orders.stack, 3, 2, "abcAB"),
        (orders.stack, 2, 5, "abABABA"),
        (orders.last, 1, 2, "aAA"),
        (orders.last, 3, 2, "abcCC"),
        (orders.middle, 1, 1, "aA"),
        (orders.middle, 1, 3, "aAAA"),
        (orders.middle, 2, 1, "aAb"),
        (orders.middle, 3, 1, "abBc"),
        (orders.middle, 4, 1, "abBcd"),
        (orders.middle, 4, 2, "abcBCd"),
        (orders.middle, 5, 3, "abcdBCDe"),
        (orders.middle, 2, 3, "abABA"),
        (orders.interleave, 1, 1, "aA"),
        (orders.interleave, 1, 2, "aAA"),
        (orders.interleave, 3, 3, "aAbBcC"),
        (orders.interleave, 3, 2, "aAbBc"),
        (orders.interleave, 4, 2, "aAbcCd"),
        (orders.interleave, 2, 4, "aAAbBB"),
        (orders.PLACES["last"], 2, 1, "abA"),
        (orders.PLACES["first"], 2, 3, "ABAab"),
        (orders.PLACES["middle"], 2, 1, "aAb"),
        (orders.PLACES["middle"], 3, 2, "abABc"),
        (orders.PLACES["middle"], 1, 1, "aA"),
    ],
)
def test_an_order_puts_copies_where_its_table_says(
    order: orders.Order, length: int, add: int, wanted: str
) -> None:
    assert order_of(order, length, add) == wanted


@pytest.mark.parametrize("length", range(1, 7))
@pytest.mark.parametrize("add", range(1, 9))
def test_interleaving_follows_its_formula(length: int, add: int) -> None:
    total = length + add
    wanted = [chr(ord("a") + i * length // total) for i in range(total)]
    assert order_of(orders.interleave, length, add).lower() == "".join(wanted)


@pytest.mark.parametrize(
    ("option", "olds"),
    [
        ("stack", [0, 1, 2, 0, 1]),
        ("interleave", [0, 0, 1, 1, 2]),
        ("middle", [0, 1, 0, 1, 2]),
        ("last", [0, 1, 2, 2, 2]),
    ],
)
@pytest.mark.parametrize("name", ["mlp_layer", "user", "gpt"])
def test_copies_have_the_weights_of_their_originals(
    option: str, olds: list[int], name: str
) -> None:
    host = a_host(name, depth=3)
    grown = grow(host, make("deepen", option, add=2), 7)
    stack = "mixers" if name == "user" else "blocks"
    for i, old in enumerate(olds):
        now, was = grown.model.get_submodule(f"{stack}.{i}"), f"{stack}.{old}"
        for key, tensor in now.named_parameters():
            assert torch.equal(tensor, host.model.get_parameter(f"{was}.{key}")), (i, key)
    first = [key for key in host.model.state_dict() if key.startswith(f"{stack}.0.")][-1]
    others = [host.model.state_dict()[first.replace(".0.", f".{i}.", 1)] for i in (1, 2)]
    assert not torch.equal(*others), "the test could not tell blocks apart"


@pytest.mark.parametrize("place", ["last", "first", "middle"])
@pytest.mark.parametrize("option", FROM_NONE)
@pytest.mark.parametrize("name", ["mlp_batch", "cnn", "resnet", "gpt"])
def test_fresh_blocks_join_in_their_place(name: str, option: str, place: str) -> None:
    host = a_host(name, depth=2)
    grown = grow(host, make("deepen", option, add=2, place=place), 7)
    where = {"last": (2, 3), "first": (0, 1), "middle": (1, 2)}[place]
    assert {int(block.rpartition(".")[2]) for block in grown.edit.blocks()} == set(where)
    now = grown.model.state_dict()
    assert all(
        torch.equal(now[grown.edit.rename(n)], t) for n, t in host.model.state_dict().items()
    )
    if option == "identity":
        assert changed(host.model, grown.model, grown.x) <= EXACT


@pytest.mark.parametrize("option", FROM_NONE)
def test_a_place_that_there_is_not_is_refused(option: str) -> None:
    with pytest.raises(SettingError, match="place must be one of last, first, middle, got 'front'"):
        make("deepen", option, place="front")


# ---- halved branches ----------------------------------------------------------------------------


def scaled(model: nn.Module, by: float) -> nn.Module:
    """The network with its residual branches made smaller."""
    ends = r"(attention\.o|mlp\.down|mixers\.\d\.out|\.blocks\.\d\.norm)\.(weight|bias)$"
    for name, tensor in model.state_dict().items():
        if re.search(ends, name):
            tensor.mul_(by)
    return model


@pytest.mark.parametrize(("depth", "add", "counts"), [(2, 2, (2, 2)), (2, 1, (2, 1)), (1, 2, (3,))])
@pytest.mark.parametrize("name", RESIDUAL)
def test_branches_are_divided_by_exactly_the_number_of_copies(
    name: str, depth: int, add: int, counts: tuple[int, ...]
) -> None:
    host = a_host(name, depth=depth)
    whole = grow(host, make("deepen", "interleave", add=add), 7)
    grown = grow(host, make("deepen", "interleave_half", add=add), 7)
    assert sorted(map(len, families(grown.edit, host.model)), reverse=True) == sorted(
        [c for c in counts if c > 1] * (2 if name == "resnet" else 1), reverse=True
    )
    divided = 0
    count_of = {b: len(family) for family in families(grown.edit, host.model) for b in family}
    for key, tensor in grown.model.named_parameters():
        before = whole.model.get_parameter(key)
        block = next((b for b in count_of if key.startswith(f"{b}.")), "")
        is_end = not torch.equal(tensor, before)
        divided += is_end
        assert torch.equal(tensor, before / count_of[block]) if is_end else True, key
    ends = {"resnet": 2, "user": 1}.get(name, 2)  # weight and bias of a norm; o and down
    assert divided == ends * len(count_of)


@pytest.mark.parametrize("add", [1, 2, 4])
@pytest.mark.parametrize("name", RESIDUAL)
def test_halved_branches_keep_the_function_to_first_order(name: str, add: int) -> None:
    """A tenth of the branch is a hundredth of the error; whole branches leave a tenth."""

    def error(option: str, by: float) -> float:
        host = a_host(name, depth=2)
        scaled(host.model, by)
        grown = grow(host, make("deepen", option, add=add), 7)
        _as_in_host(grown.model, host.model, grown.edit)
        return changed(host.model, grown.model, host.probe.x)

    halves = [error("interleave_half", by) for by in (1e-2, 1e-3)]
    wholes = [error("interleave", by) for by in (1e-2, 1e-3)]
    assert 60 < halves[0] / halves[1] < 170, halves
    assert 6 < wholes[0] / wholes[1] < 17, wholes
    assert halves[1] < 0.1 * wholes[1]


def _as_in_host(model: nn.Module, host: nn.Module, edit: Edit) -> None:
    """Running statistics of copies as of their originals: only the branches are to be seen."""
    now = model.state_dict()
    for family in families(edit, host):
        for name in family[1:]:
            for key, tensor in model.get_submodule(name).named_buffers():
                tensor.copy_(now[f"{family[0]}.{key}"])


def linear_branches() -> tuple[nn.Module, Tensor]:
    """x + W x, twice: the function of c steps of I + W/c is known."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.linear(x)

    torch.manual_seed(3)
    model = nn.Sequential(Step(), Step()).double()
    return model, torch.randn(6, 4, dtype=torch.float64)


def test_linear_branches_become_the_steps_that_the_equation_says() -> None:
    model, x = linear_branches()
    host = Host(model, Probe(x, torch.zeros(6, dtype=torch.long)))
    grown = grow(host, make("deepen", "interleave_half", add=4), 7)
    wanted, identity = x, torch.eye(4, dtype=torch.float64)
    for i in range(2):
        w = model.get_parameter(f"{i}.linear.weight").detach()
        wanted = wanted @ torch.linalg.matrix_power(identity + w / 3, 3).T
    assert float((evaluate(grown.model, x) - wanted).abs().max()) <= EXACT


@pytest.mark.parametrize("name", ["mlp_none", "mlp_batch", "mlp_layer", "cnn"])
def test_plain_blocks_have_no_branch_to_halve(name: str) -> None:
    told = (
        r"interleave_half divides .*blocks.0 \(.*Block\) has no such residual branch.*=interleave"
    )
    with pytest.raises(GrowthError, match=told):
        make("deepen", "interleave_half").propose(a_host(name))


class Scaled(nn.Module):
    """y = x + f(x), y + 0.5 g(y): the second branch does not end in a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.first(x)
        return y + torch.tanh(self.second(y)) * 0.5


def test_a_branch_that_does_not_end_in_a_layer_is_not_halved_in_part() -> None:
    model = nn.Sequential(nn.Flatten(), Scaled(), Scaled(), nn.Linear(16, 3)).double()
    with pytest.raises(GrowthError, match=r"1 \(Scaled\) has no such residual branch"):
        make("deepen", "interleave_half").propose(Host(model, a_host("mlp_none").probe))


def test_an_average_halves_its_own_branches() -> None:
    machine = a_machine(a_model("resnet"), SGD, ema=0.9)
    machine.run.average = begin(machine.run.model)
    train(machine, 4)
    before = {n: t.clone() for n, t in machine.run.average.named_parameters()}
    grow_now(machine, make("deepen", "interleave_half"))
    now = dict(machine.run.average.named_parameters())
    for i in (0, 1):
        for block in (0, 1):
            name = f"stages.{i}.blocks.{block}.norm.weight"
            assert torch.equal(now[name], before[f"stages.{i}.blocks.0.norm.weight"] / 2)


# ---- from one block and from none ---------------------------------------------------------------


@pytest.mark.parametrize("option", options("deepen"))
@pytest.mark.parametrize("name", STACKED)
def test_every_order_works_from_one_block(name: str, option: str) -> None:
    if (option == "interleave_half" and name not in RESIDUAL) or (
        option == "identity" and name == "mlp_layer"
    ):
        pytest.skip("refused, as tested above and in test_operators")
    grown = grow(a_host(name, depth=1), make("deepen", option, add=2), 7)
    fresh = a_model(name, depth=3)
    assert shapes(grown.model) == shapes(fresh)
    assert {block.rpartition(".")[2] for block in grown.edit.blocks()} == {"1", "2"}


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


def wide(name: str, factor: float, option: str = "zero") -> tuple[Host, list[Edit]]:
    """A network without blocks that has been widened, and its edits."""
    host = a_host(name, depth=0)
    if factor == 1:
        return host, []
    grown = grow(host, make("widen", option, factor=factor), 3)
    return Host(grown.model, host.probe, host.template), [grown.edit]


@pytest.mark.parametrize("factor", [1, 1.5, 2])
@pytest.mark.parametrize("option", FROM_NONE)
@pytest.mark.parametrize("name", [name for name in STACKED if name != "mlp_layer"])
def test_the_first_blocks_fit_whatever_has_been_widened(
    name: str, option: str, factor: float
) -> None:
    host, edits = wide(name, factor)
    grown = grow(host, make("deepen", option, add=2), 7)
    width = {"resnet": 4, "user": 4}.get(name, 16 if name in TRANSFORMERS else 8)
    sizes = {"width": int(width * factor)}
    if name in TRANSFORMERS:
        sizes |= {"heads": int(2 * factor), "hidden": int(64 * factor)}
    assert shapes(grown.model) == shapes(a_model(name, depth=2, **sizes))
    assert len(grown.edit.blocks()) == (4 if name in ("cnn", "resnet") else 2)
    if option == "identity":
        assert changed(host.model, grown.model, host.probe.x) <= EXACT
    else:
        assert changed(host.model, grown.model, host.probe.x) > 1e-3
    replayed = a_model(name, depth=0)
    for edit in [*edits, grown.edit]:
        stored = Edit.from_json(json.loads(json.dumps(edit.to_json())))
        assert stored == edit
        stored.apply(replayed, host.template)
    assert str(replayed) == str(grown.model) and shapes(replayed) == shapes(grown.model)
    grown.edit.revert(replayed)
    assert shapes(replayed) == shapes(host.model)


def test_first_blocks_fit_stages_of_which_one_was_widened_alone() -> None:
    host = a_host("resnet", depth=0)
    wider = grow(host, make("widen", "random", spaces="stages.0.*", size=7), 3)
    host = Host(wider.model, host.probe, host.template)
    grown = grow(host, make("deepen", "identity"), 7)
    assert grown.model.get_parameter("stages.0.blocks.0.conv.weight").shape == (7, 7, 3, 3)
    assert grown.model.get_parameter("stages.1.blocks.0.conv.weight").shape == (8, 8, 3, 3)
    assert changed(host.model, grown.model, host.probe.x) <= EXACT


def test_first_blocks_fit_behind_a_second_head_and_more_outputs() -> None:
    host = a_host("mlp_batch", depth=0)
    for group, option in (("widen", "zero"), ("head", "outputs"), ("head", "second")):
        grown = grow(host, make(group, option), 3)
        host = Host(grown.model, host.probe, host.template)
    grown = grow(host, make("deepen", "identity"), 7)
    assert grown.model.get_parameter("blocks.0.linear.weight").shape == (16, 16)
    assert changed(host.model, grown.model, host.probe.x) <= EXACT


def test_stacks_begin_one_by_one_beside_those_that_have_blocks() -> None:
    host = a_host("cnn", depth=0)
    one = grow(host, make("deepen", "random", stacks="stages.1.*", add=2), 3)
    host = Host(one.model, host.probe, host.template)
    assert [block.stack for block in first_blocks(host)] == ["stages.0.blocks"]
    both = grow(host, make("deepen", "random"), 3)
    assert set(both.edit.blocks()) == {"stages.0.blocks.0", "stages.1.blocks.2"}
    stacked = make("deepen", "stack").propose(host)
    assert set(stacked.blocks()) == {"stages.1.blocks.2"}


def test_a_first_block_is_built_the_same_every_time_and_in_the_mode_of_its_stack() -> None:
    """Also where a block holds parameters that no `reset_parameters` draws anew."""
    host = a_host("resnet", depth=0)
    built: list[dict[str, Tensor]] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        built.append(build(host.template, host.model).state_dict())
    assert all(torch.equal(built[0][key], built[1][key]) for key in built[0])
    for training in (True, False):
        host.model.train(training)
        grown = grow(host, make("deepen", "random"), 7).model
        assert all(module.training is training for module in grown.modules())


def test_building_the_first_block_draws_no_global_random_number() -> None:
    host = a_host("gpt", depth=0)
    state = torch.get_rng_state()
    first, again, other = (grow(host, make("deepen", "random"), s).model for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    key = "blocks.0.mlp.up.weight"
    assert not torch.equal(first.get_parameter(key), other.get_parameter(key))


def from_none(name: str, warmup: str, option: str = "random") -> Machine:
    """A run whose first blocks have just joined a widened network."""
    sets = a_set_of_text() if reads_text(name) else a_set()
    machine = a_machine(a_model(name, depth=0), make("optimizer", "adamw"), sets=sets)
    machine.run.template = a_host(name, depth=0).template
    train(machine, 2)
    grow_now(machine, make("widen", "zero", factor=1.5))
    train(machine, 2)
    machine = Machine(machine.run, replace(machine.setup, warmup=make("warmup", warmup)))
    grow_now(machine, make("deepen", option))
    return machine


@pytest.mark.parametrize("warmup", ["zero_init", "linear_ramp"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_first_blocks_keep_the_function_and_then_all_that_is_there_learns(
    name: str, warmup: str
) -> None:
    machine = from_none(name, warmup)
    event = machine.run.events[-1]
    assert event.promised and event.output_change <= EXACT
    before = snapshot(machine)
    train(machine, 6)
    blocks = [key for key in before if key.startswith(tuple(f"model/{b}." for b in event.blocks))]
    assert blocks
    for key, parameter in machine.run.model.named_parameters():
        assert not torch.equal(parameter, before[f"model/{key}"]), key
        assert bool(parameter.isfinite().all())


@pytest.mark.parametrize("name", ["mlp_batch", "gpt"])
def test_going_back_empties_the_stack_again(name: str) -> None:
    machine = from_none(name, "none")
    before = Before.of(machine.run)
    kept = snapshot(machine)
    grow_now(machine, make("deepen", "stack", add=2))
    train(machine, 2)
    before.restore(machine.run)
    now = snapshot(machine)
    assert now.keys() == kept.keys()
    machine = a_machine(a_model("mlp_batch", depth=0), SGD)
    machine.run.template = a_host("mlp_batch", depth=0).template
    start, empty = Before.of(machine.run), snapshot(machine)
    grow_now(machine, make("deepen", "identity"))
    assert "model/blocks.0.linear.weight" in snapshot(machine)
    start.restore(machine.run)
    assert snapshot(machine).keys() == empty.keys()


def test_an_average_gets_the_first_blocks_too() -> None:
    machine = a_machine(a_model("mlp_batch", depth=0), SGD, ema=0.9)
    machine.run.template = a_host("mlp_batch", depth=0).template
    machine.run.average = begin(machine.run.model)
    train(machine, 3)
    x = machine.run.probe.x
    grow_now(machine, make("deepen", "random"))
    assert machine.run.average is not None
    new, theirs = machine.run.model.state_dict(), machine.run.average.state_dict()
    for key in new:
        assert key in theirs and (".0." not in key or torch.equal(new[key], theirs[key]))
    assert evaluate(machine.run.average, x).isfinite().all()


RUNS: dict[str, tuple[str, ...]] = {
    "mlp": (),
    "cnn": ("model=cnn", "model.width=4"),
    "resnet": ("model=resnet", "model.width=4", "model.stages=2"),
    "vit": ("model=vit", "model.width=16"),
    "gpt": ("model=gpt", "model.width=16", "data=text", "data.length=8", "data.bytes=2000"),
}
WIDER_FIRST = (
    "growth.stages.deeper.operator=${widen}",
    "growth.stages.wider.operator=${deepen}",
)


@pytest.mark.parametrize("stop", some([9, 17], 2))
@pytest.mark.parametrize("option", FROM_NONE)
@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_none_is_resumed_in_the_same_bits(
    name: str, option: str, stop: int, tmp_path: Path
) -> None:
    """Widened at 25 %, first blocks at 50 %; stopped between the two and behind them."""
    chosen = (*RUNS[name], "growth=schedule", NONE, *WIDER_FIRST)
    made = parts(*chosen, f"deepen={option}", "train.ema=0.9")
    whole = train_job(made, tmp_path / "whole")
    first = whole.run.events[1].edit.changes[0]
    assert isinstance(first, FirstBlock) and first.widenings
    train_job(made, tmp_path / "cut", at_step(stop, _interrupt))
    assert differences(whole, resume(made, tmp_path / "cut")) == []


def _interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_budget_and_a_plan_see_what_could_begin(tmp_path: Path) -> None:
    deepening = ("growth.options.wider=${deepen}", "growth.max_params=300")
    done = train_job(parts("growth=budget", NONE, *deepening), tmp_path, store=False)
    assert [type(c) for e in done.run.edits for c in e.changes][:2] == [FirstBlock, InsertBlock]
    grown = [event.params_after for event in done.run.events]
    assert [row.params for row in done.spy.plan][1 : len(grown) + 1] == grown


def test_task_plan_lists_a_stack_that_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    machine = a_machine(a_model("cnn", depth=0), SGD)
    machine.run.template = a_host("cnn", depth=0).template
    print_things_that_grow(machine.run, Console(width=120))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["stages.0.blocks", "0", "0"] in rows and ["stages.1.blocks", "0", "0"] in rows


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ({"width": 0.5, "depth": 0}, {"width": 0.5, "depth": 1}),
        ({"layers": 0}, {"layers": 1}),
        ({"width": 4}, {"width": 4, "depth": 1}),
        ({"depth": 2}, {"depth": 1}),
    ],
)
def test_the_template_has_one_block_where_the_start_has_none(
    start: dict[str, float], wanted: dict[str, float]
) -> None:
    assert with_blocks(start) == wanted


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", COPYING)
def test_copying_from_none_is_refused_with_what_to_take(option: str) -> None:
    with pytest.raises(GrowthError, match=r"blocks has none.*deepen=random .*growth\.start\.depth"):
        make("deepen", option).propose(a_host("mlp_none", depth=0))


def test_a_pattern_that_names_no_empty_stack_says_which_there_are() -> None:
    with pytest.raises(GrowthError, match=r"Did you mean 'blocks'\? Stacks: blocks"):
        make("deepen", "random", stacks="block").propose(a_host("mlp_none", depth=0))


def test_a_model_without_a_number_of_blocks_has_none_that_could_begin(tmp_path: Path) -> None:
    """An empty Sequential stands for nothing where no setting fills it."""

    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.shortcut = a_model("flat"), nn.Sequential()

        def forward(self, x: Tensor) -> Tensor:
            return self.shortcut(self.net(x))

    host = Host(Shortcut(), a_host("flat").probe)
    with pytest.raises(NothingToGrowError, match="widen instead"):
        make("deepen", "random").propose(host)


def test_a_stack_that_is_refused_leaves_the_run_as_it_was() -> None:
    machine = a_machine(a_model("mlp_layer", depth=0), SGD)
    machine.run.template = a_host("mlp_layer", depth=0).template
    before, model = snapshot(machine), machine.run.model
    for option, told in (("identity", "cannot be made the identity"), ("stack", "has none")):
        with pytest.raises(GrowthError, match=told):
            grow_now(machine, make("deepen", option))
    assert machine.run.model is model and not machine.run.events
    after = snapshot(machine)
    assert all(torch.equal(before[name], after[name]) for name in before)
