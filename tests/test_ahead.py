"""hardware.compile_ahead: what a growth needs is compiled beside the run, and found on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from run_kit import Spy, at_step, differing, graphs_alone, parts, train
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from progtrain.ahead import reporter
from progtrain.ahead.background import Result
from progtrain.ahead.calls import as_replica, compile_all
from progtrain.ahead.order import Like, Order, order
from progtrain.boundary import grow
from progtrain.curriculum.sight import begin
from progtrain.errors import GrowthError, SettingError
from progtrain.growth.controls import Controls
from progtrain.hardware.blocks import stand_in
from progtrain.hardware.cpu import CPU
from progtrain.hardware.ddp import DDP
from progtrain.hardware.group import Group
from progtrain.hardware.place import Place
from progtrain.run import Phase, Run, Stage
from progtrain.setup import Setup
from progtrain.start import batches_of, new_run, new_setup
from progtrain.stepper import Stepper

pytestmark = pytest.mark.filterwarnings("default")  # inductor's own

COMPILED = ("hardware.compile=true", "hardware.compile_ahead=true")
WIDER = ("growth=schedule", "growth.stages.deeper=null")
DEEPER = ("growth=schedule", "growth.stages.wider=null")
CNN = ("model=cnn", "model.width=4", "model.depth=2")
GPT = ("data=text", "data.length=8", "data.bytes=4000", "model=gpt", "model.width=16",
       "model.heads=2", "model.depth=2")  # fmt: skip


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    yield from graphs_alone(monkeypatch)


def assembled(*overrides: str) -> tuple[Run, Setup]:
    made = parts(*COMPILED, *overrides)
    engine = made.hardware.open()
    batches = batches_of(made, engine)
    return new_run(made, engine, batches), new_setup(made, engine, batches)


def grown(run: Run, setup: Setup) -> Stepper:
    """The run after its next growth, ready for a step."""
    run.model.train()
    stage = setup.growth.upcoming(run)
    assert isinstance(stage, Stage)
    grow(run, setup, stage, Controls(run.model, run.events, setup.warmup))
    return Stepper(run, setup)


@pytest.mark.parametrize(
    "overrides",
    [(*CNN, "widen=zero"), (*GPT, "hardware.precision=bf16", "widen=zero"), ("widen=zero",)],
    ids=["cnn", "gpt", "mlp"],
)
def test_what_is_compiled_ahead_is_all_that_the_growth_needs(
    overrides: tuple[str, ...], traced: None
) -> None:
    run, setup = assembled(*WIDER, "warmup=none", *overrides)
    made = list(compile_all(order(run, setup), setup.engine))
    graphs = setup.engine.graphs
    assert made and graphs
    grown(run, setup).step()
    assert setup.engine.graphs == graphs


@pytest.mark.parametrize(
    "overrides",
    [
        (*WIDER, *GPT, "warmup=cosine_ramp"),
        (*WIDER, *CNN, "warmup=frozen_host", "hardware.precision=bf16"),
        (*DEEPER, *GPT, "warmup=cosine_ramp", "warmup.isolated=true", "deepen=random"),
        (
            *WIDER,
            *GPT,
            "model.depth=4",
            "train.freeze=[blocks.0.*]",
            "train.accumulate=2",
            "hardware.precision=bf16",
        ),
        (*WIDER, *CNN, "curriculum=image_size", "curriculum.length=100%", "data.shape=[1,8,8]"),
    ],
    ids=["ramp", "frozen_host", "isolated", "freeze", "image_size"],
)
def test_every_phase_of_a_growth_is_foreseen(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of blocks are compared in all that a graph depends on, with those of real steps."""
    run, setup = assembled("widen=random", *overrides)
    begin(run, setup, ranked=False)
    wanted, seen = order(run, setup), set[str]()
    monkeypatch.setattr(type(setup.engine), "forward", lambda _, kind: noting(kind, seen))
    for _ in compile_all(wanted, setup.engine):
        pass
    foreseen = set(seen)
    seen.clear()
    stepper = grown(run, setup)
    while run.events[-1].alive:
        stepper.step()
    stepper.step()
    assert seen == foreseen
    assert len(seen) > 1


def test_the_next_network_is_foreseen_while_the_last_growth_still_joins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = ("growth=schedule", "warmup=cosine_ramp", "widen=random", "deepen=random")
    run, setup = assembled(*stages, *GPT)
    seen = set[str]()
    monkeypatch.setattr(type(setup.engine), "forward", lambda _, kind: noting(kind, seen))
    stepper = grown(run, setup)
    stepper.controls.lift()
    for _ in compile_all(order(run, setup), setup.engine):
        pass
    foreseen = set(seen)
    stepper.renew()
    while run.events[-1].alive:
        stepper.step()
    seen.clear()
    stepper.step()
    stepper = grown(run, setup)
    while run.events[-1].alive:
        stepper.step()
    stepper.step()
    assert seen == foreseen
    assert len(run.events) == 2


def noting(kind: type[nn.Module], seen: set[str]) -> Callable[..., Any]:
    """A forward that notes what a graph of it depends on."""

    def forward(block: nn.Module, *args: Any) -> Any:
        tensors = dict(block.named_parameters())
        told = {name: Like.of(each) for name, each in tensors.items()}
        hooks = [len(m._forward_pre_hooks) for m in block.modules() if m is not block]
        inputs = tree_map_only(Tensor, Like.of, args)
        autocast = torch.is_autocast_enabled("cpu")
        seen.add(repr((kind.__name__, told, hooks, inputs, block.training, autocast)))
        return kind.forward(block, *args)

    return forward


def test_after_a_growth_its_later_phases_come_first(traced: None) -> None:
    stages = ("growth=schedule", "warmup=cosine_ramp", "widen=random", "deepen=random")
    run, setup = assembled(*stages, *CNN, "hardware.threads=null")
    grown(run, setup).controls.lift()
    found = order(run, setup)
    sizes = [sum(p.numel() for p in look.model.parameters()) for look in found.looks]
    assert sizes[0] == run.params and sizes[1] == sizes[2] > run.params
    phases = [[event.phase for event in look.events] for look in found.looks]
    over, ramp = Phase.INTEGRATED, Phase.WARMUP
    assert phases == [[over], [over, ramp], [over, over]]
    assert found.settings.threads == torch.get_num_threads()


def test_graphs_are_cut_as_under_ddp(tmp_path: Path) -> None:
    cut = list[int]()

    def backend(graph: Any, inputs: Any) -> Any:
        cut.append(len(inputs))
        return graph

    def passed(network: nn.Module) -> list[int]:
        torch.compiler.reset()
        cut.clear()
        network(torch.randn(2, 512)).sum().backward()
        return list(cut)

    block = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512))
    model = nn.Sequential(block)
    stand_in(model, lambda kind: torch.compile(kind.forward, backend=backend, dynamic=False))
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        theirs = passed(DistributedDataParallel(model))
    finally:
        dist.destroy_process_group()
    with as_replica(True):
        assert passed(model) == theirs
    assert len(theirs) == 2 and len(passed(model)) == 1
    torch.compiler.reset()


def test_of_the_processes_on_a_machine_the_first_compiles_for_all(
    beside: type[Beside], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, setup = assembled(*WIDER)
    for place, does in ((Place(3, 4, 1, 2), False), (Place(2, 4, 0, 2), True), (None, True)):
        monkeypatch.setattr(reporter, "here", lambda place=place: place)
        with reporter.compiling_ahead(run, setup) as followed:
            assert (followed is not setup) == does


class Beside:
    """Takes the place of the process: remembers its order, and is done when told so."""

    made: ClassVar[list[Beside]] = []

    def __init__(self, packed: bytes) -> None:
        self.order: Order = torch.load(io.BytesIO(packed), weights_only=False)
        self.done, self.ended = False, ""
        Beside.made.append(self)

    def result(self) -> Result | None:
        return Result(3, 2.0) if self.done else None

    def end(self, why: str = "") -> Result:
        self.ended = why or "at once"
        return Result(1, 1.0, why)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, traced: None) -> type[Beside]:
    Beside.made.clear()
    monkeypatch.setattr(reporter, "Background", Beside)
    return Beside


def test_a_process_begins_after_the_first_compiled_step_and_ends_with_its_stage(
    beside: type[Beside], tmp_path: Path
) -> None:
    begun = list[int]()

    def act(call: str, run: Run) -> None:
        if call == "stepped" and len(begun) < len(beside.made):
            begun.append(run.clock.step)
        if call == "stepped" and run.clock.step == 9:
            beside.made[-1].done = True

    stages = ("growth=schedule", "growth.stages.deeper.at=6steps", "growth.stages.wider.at=12steps")
    spy = Spy(act)
    done = train(parts(*COMPILED, *stages, *CNN, "warmup=none", "widen=zero"), tmp_path, spy)
    assert begun == [2, 7]  # step 1 compiles; after the last growth there is nothing to do
    assert [each.ended for each in beside.made] == ["until the network changed", ""]
    told = [note for note in spy.notes if note.startswith("compiled ahead")]
    assert told == [
        "compiled ahead: 1 graph in 1.0 s, until the network changed",
        "compiled ahead: 3 graphs in 2.0 s",
    ]
    cost = json.loads((done.directory / "result.json").read_text())["cost"]
    assert cost["uncharged"]["seconds"]["ahead"] == 3.0
    assert "ahead" not in cost["seconds"]


def test_the_bits_of_a_run_are_the_same(beside: type[Beside], tmp_path: Path) -> None:
    common = ("hardware.compile=true", "growth=budget", "warmup=cosine_ramp", *CNN)
    without = train(parts(*common), tmp_path / "without")
    ahead = train(parts(*common, "hardware.compile_ahead=true"), tmp_path / "ahead")
    assert beside.made and len(ahead.run.events) == 2
    assert beside.made[-1].ended
    assert differing(without.spy.digest, ahead.spy.digest) == []


def test_a_run_that_fails_takes_the_process_along(beside: type[Beside], tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(parts(*COMPILED, *WIDER), tmp_path, at_step(5, fail))
    assert [each.ended for each in beside.made] == ["at once"]


def test_what_cannot_be_foreseen_is_told_and_the_run_goes_on(
    beside: type[Beside], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(run: Run, setup: Setup) -> Order:
        raise RuntimeError("it looks at\nvalues")

    monkeypatch.setattr(reporter, "order", fails)
    done = train(parts(*COMPILED, *WIDER, "warmup=none", "widen=zero"), tmp_path)
    assert len(done.run.events) == 1
    told = [note for note in done.spy.notes if note.startswith("nothing is compiled ahead")]
    assert len(told) == 2 and all("(it looks at)" in note for note in told)
    assert not beside.made


def test_one_of_several_processes_looks_at_no_values_alone() -> None:
    """Slopes are reduced over all: it would wait for ever."""
    run, setup = assembled("growth=budget", "growth/choice=steepest", "warmup=none", *CNN)
    setup.engine.group = Group(0, 2, 0)
    with pytest.raises(GrowthError, match="all processes would have to look"):
        order(run, setup)


def test_a_policy_that_chooses_by_gradients_is_asked_what_it_would_choose_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, setup = assembled("growth=budget", "growth/choice=steepest", "warmup=none", *CNN)
    wanted, policy = setup.growth.upcoming(run), type(setup.growth)
    assert isinstance(wanted, Stage)
    asked: Callable[[Any, Run], Any] = policy.upcoming
    monkeypatch.setattr(policy, "upcoming", lambda *self: (torch.rand(3), asked(*self))[1])
    numbers, params = torch.get_rng_state(), run.params
    (look,) = order(run, setup).looks
    assert torch.equal(torch.get_rng_state(), numbers)
    assert look.events[-1].stage == wanted.name
    assert run.params == params and not run.events


def test_all_candidates_of_a_trial_are_compiled_ahead() -> None:
    run, setup = assembled("growth=budget", "growth/choice=trial", "warmup=none", *CNN)
    stage = setup.growth.upcoming(run)
    assert isinstance(stage, Stage) and len(stage.candidates) == 2
    sizes = {sum(p.numel() for p in look.model.parameters()) for look in order(run, setup).looks}
    assert len(sizes) == 2


def test_it_is_refused_where_nothing_is_compiled() -> None:
    for hardware in (CPU, DDP):
        with pytest.raises(SettingError, match="compile=true"):
            hardware(compile_ahead=True)
        hardware(compile=True, compile_ahead=True)
