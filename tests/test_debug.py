"""The debug modes: each on a run with what it looks for planted in it, and on one without."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_kit import branch, differences, options, parts, resume, train, warming
from torch import Tensor, nn

from progtrain import stepper
from progtrain.build import Parts
from progtrain.data.sets import Sets
from progtrain.debug.nans import finite
from progtrain.errors import ConfigError, DivergedError, FoundError, SettingError
from progtrain.growth.grow import Grown
from progtrain.run import Phase

GROWING = ("growth=schedule", "warmup=none")


def changed(made: Parts, change: Callable[[nn.Module], None]) -> Parts:
    """The parts with every network changed as it is built."""
    factory = made.model_factory

    def build(start: Mapping[str, int | float]) -> nn.Module:
        model = factory(start)
        change(model)
        return model

    return replace(made, model_factory=build)


@dataclass(frozen=True)
class Relabelled:
    """A data set with labels drawn at random, and what was learnt of them otherwise gone."""

    data: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def num_classes(self) -> int:
        return self.data.num_classes

    def load(self) -> Sets:
        sets = self.data.load()
        drawn = torch.randint(self.num_classes, sets.train.y.shape)
        return replace(sets, train=replace(sets.train, y=drawn))


# fast_dev_run


@pytest.mark.parametrize(
    ("growth", "grown"),
    [
        (("growth=none",), []),
        (("growth=schedule",), ["deeper", "wider"]),
        (("growth=schedule", "growth.stages.wider.at=23steps"), ["deeper", "wider"]),
        (("growth=plateau",), ["deeper", "wider"]),
        (("growth=budget",), ["deeper", "wider"]),
        (("growth=proactive",), ["deeper", "wider"]),
        (("growth=sequential",), ["deeper", "wider"]),
        (("growth=overlapping",), ["deeper", "wider"]),
        (
            ("growth=combined", "curriculum=difficulty", "curriculum/score=function"),
            ["deeper", "wider"],
        ),
    ],
    ids=lambda each: each[0] if each else "nothing",
)
def test_every_declared_growth_happens_once(
    growth: tuple[str, ...], grown: list[str], tmp_path: Path
) -> None:
    made = parts(*growth, *warming("cosine_ramp", "500steps"), "debug=fast_dev_run")
    ended = train(made, tmp_path)
    run = ended.run
    assert sorted(event.stage for event in run.events) == grown
    assert all(event.phase is Phase.INTEGRATED for event in run.events)
    phases = 1 + bool(made.growth.consolidate.value)
    assert run.clock.step == 2 + phases * len(grown), "one first, one a phase, and one at the end"
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_every_option_of_a_trial_is_tried_for_a_step(tmp_path: Path) -> None:
    made = parts("growth=budget", "growth/choice=trial", "debug=fast_dev_run", "warmup=none")
    ended = train(made, tmp_path)
    assert sorted(event.stage for event in ended.run.events) == ["deeper", "wider"]
    assert any("a trial of 1 step (" in note for note in ended.spy.notes)


def test_a_fast_dev_run_is_no_result(tmp_path: Path) -> None:
    train(parts("debug=fast_dev_run"), tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "fast_dev_run"
    assert "Its figures are no result." in (tmp_path / "debug.txt").read_text()


def test_it_sees_one_batch_of_each_split(tmp_path: Path) -> None:
    made = parts("debug=fast_dev_run")
    sets = made.data.load()
    tested = replace(made, data=Relabelled(made.data))
    object.__setattr__(tested.data, "load", lambda: replace(sets, test=sets.validation))
    ended = train(tested, tmp_path)
    assert ended.run.clock.epoch_samples == 8 == ended.run.evaluated
    assert ended.run.test and "test/accuracy" in ended.run.test


def test_a_condition_on_a_metric_that_is_not_there_is_found(tmp_path: Path) -> None:
    made = parts("growth=plateau", "growth.trigger.metric=val/ema/accuracy", "debug=fast_dev_run")
    with pytest.raises(ConfigError, match="val/ema/accuracy"):
        train(made, tmp_path)


# overfit_batches


def test_shuffled_labels_are_learnt_by_heart_by_a_network_that_grows(tmp_path: Path) -> None:
    made = parts(
        *GROWING,
        "debug=overfit_batches",
        "debug.batches=2",
        "model.width=32",
        "optimizer.lr=0.03",
        "curriculum=batch_size",
    )
    ended = train(replace(made, data=Relabelled(made.data)), tmp_path)
    run = ended.run
    assert run.clock.total.value == 300 and run.clock.epoch_samples == 16 == run.evaluated
    assert run.history[-1].metrics["val/loss"] < 0.05
    told = (tmp_path / "debug.txt").read_text().splitlines()
    assert [line.split(":")[1].strip() for line in told] == [
        "start", "after growth 1 deeper", "after growth 2 wider"
    ]  # fmt: skip
    assert told[-1].endswith("learnt by heart") and "not learnt" not in told[-1]
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "overfit_batches"


def test_the_batches_are_the_first_of_the_run_and_stay(tmp_path: Path) -> None:
    made = parts("debug=overfit_batches", "debug.steps=4")
    seen: list[Tensor] = []
    hooked = changed(made, lambda m: _watch(m, seen))
    with pytest.raises(FoundError):
        train(hooked, tmp_path / "overfit", store=False)
    others: list[Tensor] = []
    short = changed(parts("train.duration=1steps"), lambda m: _watch(m, others))
    train(short, tmp_path / "other", store=False)
    first = next(x for x in others if len(x) == 8)
    batches = [x for x in seen if len(x) == 8]
    assert len(batches) >= 4 and all(torch.equal(x, first) for x in batches)


def _watch(model: nn.Module, seen: list[Tensor]) -> None:
    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].device.type == "cpu" and module.training:
            seen.append(inputs[0].clone())

    model.register_forward_pre_hook(note)


def test_a_network_that_cannot_learn_is_found(tmp_path: Path) -> None:
    made = parts("debug=overfit_batches", "debug.steps=20", "optimizer.lr=1e-9", "growth=none")
    with pytest.raises(
        FoundError, match=r"not learnt the same 1 batches by heart.*debug\.loss=0\.05"
    ):
        train(made, tmp_path)
    assert FoundError.exit_code == 7


# profile


def traced(folder: Path) -> list[str]:
    """Names of what the trace holds."""
    trace = json.loads((folder / "trace.json").read_text())
    return [event["name"] for event in trace["traceEvents"] if "name" in event]


def test_a_profile_has_a_table_and_a_trace_of_its_window(tmp_path: Path) -> None:
    made = parts("growth=none", "debug=profile", "debug.wait=3", "debug.active=4", "debug.rows=5")
    train(made, tmp_path)
    told = (tmp_path / "debug.txt").read_text().splitlines()
    assert told[0] == "profile: steps 6 to 9"
    assert told[1].split() == ["operator", "calls", "self", "CPU", "share", "memory"]
    assert any("aten::" in line for line in told[2:7]) and told[7].startswith("moves: ")
    times = [float(line[52:63]) for line in told[2:7]]
    assert times == sorted(times, reverse=True) and times[0] > 0
    assert any("step 4×" in line for line in told)
    names = traced(tmp_path)
    assert names.count("progtrain.step") == 4 and "aten::addmm" in names


def test_a_profile_around_a_growth_holds_the_growth(tmp_path: Path) -> None:
    train(parts(*GROWING, "debug=profile", "debug.around_growth=true"), tmp_path / "with")
    assert "growth of deeper" in (tmp_path / "with" / "debug.txt").read_text()
    assert traced(tmp_path / "with").count("progtrain.grow") == 1
    assert traced(tmp_path / "with").count("progtrain.step") == 5
    train(parts(*GROWING, "debug=profile", "debug.wait=0", "debug.active=2"), tmp_path / "without")
    assert "progtrain.grow" not in traced(tmp_path / "without")


def test_a_profile_that_saw_nothing_says_why(tmp_path: Path) -> None:
    train(parts("growth=none", "debug=profile", "debug.wait=50"), tmp_path / "short")
    assert "the run was shorter" in (tmp_path / "short" / "debug.txt").read_text()
    train(parts("growth=none", "debug=profile", "debug.around_growth=true"), tmp_path / "none")
    assert "no growth came" in (tmp_path / "none" / "debug.txt").read_text()


# nans


class Poison(nn.Module):
    """Passes on what it is given, and from the `after`-th training pass on something else."""

    def __init__(self, after: int, kind: str) -> None:
        super().__init__()
        self.after, self.kind, self.passes = after, kind, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training and torch.is_grad_enabled()
        if self.passes < self.after:
            return x
        return x / 0 if self.kind == "forward" else x + (x - x.detach()).abs().sqrt()


def poisoned(kind: str, after: int, *overrides: str) -> Parts:
    def plant(model: nn.Module) -> None:
        block = model.get_submodule("blocks.0")
        block.register_module("poison", Poison(after, kind))
        block.register_forward_hook(lambda m, x, y: m.get_submodule("poison")(y))

    return changed(parts("growth=none", "debug=nans", *overrides), plant)


def test_the_module_that_makes_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"'blocks\.0\.poison' \(Poison\).*stage start"
    ) as found:
        train(poisoned("forward", 7), tmp_path)
    assert "its input and weights are" in str(found.value)


def test_an_operation_whose_gradient_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"gradient of Abs .* stage start.*test_debug\.py"):
        train(poisoned("backward", 7), tmp_path)
    with pytest.raises(DivergedError, match="A gradient is not finite at step 7"):
        train(poisoned("backward", 7, "debug.backward=false"), tmp_path / "blind")


def test_a_weight_that_is_no_number_is_told_from_a_computation(tmp_path: Path) -> None:
    wild = ("growth=none", "debug=nans", "optimizer=sgd", "optimizer.lr=90", "model.norm=none")
    with pytest.raises(DivergedError, match=r"its (weight|bias|input)|gradient of"):
        train(parts(*wild, "train.duration=300steps"), tmp_path)


def test_data_that_are_no_numbers_are_blamed(tmp_path: Path) -> None:
    made = parts("growth=none", "debug=nans", "model.norm=none")
    sets = made.data.load()
    sets.train.x[3] = float("nan")
    data = Relabelled(made.data)
    object.__setattr__(data, "load", lambda: sets)
    with pytest.raises(DivergedError, match=r"its input is not, .*Look at the data"):
        train(replace(made, data=data), tmp_path)


@dataclass(frozen=True)
class Broken:
    """An operator whose new entries are no numbers."""

    operator: Any
    preserves = False
    shares = False

    def propose(self, host: Any) -> Any:
        return self.operator.propose(host)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        self.operator.fill(grown, generator)
        for slab in grown.edit.slabs():
            tensor = dict(grown.model.named_parameters()).get(slab.tensor)
            if tensor is not None:
                with torch.no_grad():
                    tensor[slab.mask(tensor)] = float("nan")

    def flops(self, grown: Grown) -> float:
        return 0.0


def with_operator(made: Parts, operator: Callable[[Any], Any]) -> Parts:
    """The parts with the operator of the stage `wider` replaced."""
    growth: Any = made.growth
    stages = dict(growth.stages)
    stages["wider"] = replace(stages["wider"], operator=operator(stages["wider"].operator))
    return replace(made, growth=replace(growth, stages=stages))


def test_what_a_growth_breaks_is_found_at_the_growth(tmp_path: Path) -> None:
    made = parts(*GROWING, "debug=nans", "growth.stages.deeper=null")
    with pytest.raises(DivergedError, match=r"Module 'stem.*its weight is not"):
        train(with_operator(made, Broken), tmp_path)


def test_compiled_modules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hardware\.compile=false"):
        train(parts("debug=nans", "hardware.compile=true"), tmp_path)


# determinism


def test_two_runs_are_equal_and_so_is_a_resumed_one(tmp_path: Path) -> None:
    made = parts(*GROWING, "model=cnn", "model.width=4", "model.dropout=0.3", "train.ema=0.9",
                 "debug=determinism")  # fmt: skip
    train(made, tmp_path)
    told = (tmp_path / "debug.txt").read_text()
    assert "two runs of 24 steps and 2 growths are equal in every bit" in told
    assert "resumed at step 12" in told
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "done"


class Drifting(nn.Module):
    """Adds noise that no seed reaches, from the `after`-th training pass on."""

    drawn = random.Random(0)

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.passes = after, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training and torch.is_grad_enabled()
        return x if self.passes < self.after else x * (1 + 1e-3 * Drifting.drawn.random())


def test_a_forward_pass_that_draws_without_a_seed_is_found(tmp_path: Path) -> None:
    def plant(model: nn.Module) -> None:
        block = model.get_submodule("blocks.0")
        block.register_module("drift", Drifting(9))
        block.register_forward_hook(lambda m, x, y: m.get_submodule("drift")(y))

    made = changed(
        parts("growth=none", "debug=determinism", "debug.resume=null", "model.norm=none"), plant
    )
    with pytest.raises(
        FoundError, match=r"step [89]: loss of the step by .*The forward pass is not"
    ):
        train(made, tmp_path)


@dataclass(frozen=True)
class Unseeded:
    """An operator that draws new entries from a generator of its own."""

    operator: Any
    preserves = False
    shares = False

    def propose(self, host: Any) -> Any:
        return self.operator.propose(host)

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        free = torch.Generator()
        free.seed()
        self.operator.fill(grown, free)

    def flops(self, grown: Grown) -> float:
        return 0.0


def test_an_operator_that_draws_without_a_seed_is_found_at_its_growth(tmp_path: Path) -> None:
    made = parts(*GROWING, "debug=determinism", "growth.stages.wider.at=7steps",
                 "growth.stages.deeper=null", "debug.resume=null")  # fmt: skip
    with pytest.raises(
        FoundError, match=r"at the growth of step 7: weight \w.* by .* more tensors"
    ):
        train(with_operator(made, Unseeded), tmp_path)


def test_state_that_a_checkpoint_misses_is_found_after_the_resume(tmp_path: Path) -> None:
    """A module that counts its passes in an attribute: the same twice, but not after a resume."""

    def plant(model: nn.Module) -> None:
        block = model.get_submodule("blocks.0")
        block.register_module("count", Counting())
        block.register_forward_hook(lambda m, x, y: m.get_submodule("count")(y))

    forgetful = ("growth=none", "debug=determinism", "train.evaluate_every=100steps")
    train(changed(parts(*forgetful, "debug.resume=null"), plant), tmp_path / "never")
    with pytest.raises(FoundError, match="resumed from a checkpoint of step 10"):
        train(changed(parts(*forgetful, "debug.resume=10steps"), plant), tmp_path / "resumed")


class Counting(nn.Module):
    """Scales by how often it has run."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += self.training and torch.is_grad_enabled()
        return x * (1 + 0.01 * self.passes)


def test_lengths_in_seconds_are_named_as_what_cannot_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of the second run take three times as long."""
    times = accumulate(cycle((0.0, 0.01, 0.0, 0.03)))
    watch = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr(stepper, "time", watch)
    made = parts(*GROWING, "growth.stages.deeper=null", "growth.stages.wider.at=0.05seconds",
                 "debug=determinism", "debug.resume=null")  # fmt: skip
    with pytest.raises(FoundError, match=r"step 2: .* in seconds cannot be repeated"):
        train(made, tmp_path, store=False)


# all of them


@pytest.mark.parametrize(
    "mode", [m for m in options("debug") if m not in ("overfit_batches", "fast_dev_run")]
)
def test_a_mode_that_only_looks_changes_no_bit(mode: str, tmp_path: Path) -> None:
    plain = train(parts(*GROWING), tmp_path / "plain")
    looked = train(parts(*GROWING, f"debug={mode}"), tmp_path / "looked")
    assert not differences(plain, looked)


@pytest.mark.parametrize("mode", ["profile", "nans", "determinism"])
def test_a_run_that_is_looked_into_resumes_like_any_other(mode: str, tmp_path: Path) -> None:
    made = parts(*GROWING, f"debug={mode}", "checkpoint.every=50%")
    whole = train(made, tmp_path / "whole")
    again = resume(made, branch(tmp_path / "whole", 12, tmp_path / "again"))
    assert not differences(whole, again)


@pytest.mark.parametrize(
    ("mode", "setting", "value", "allowed"),
    [
        ("overfit_batches", "batches", 0, "a whole number >= 1"),
        ("overfit_batches", "steps", 1.5, "a whole number >= 1"),
        ("overfit_batches", "loss", 0.0, "a finite number > 0"),
        ("profile", "wait", -1, "a whole number >= 0"),
        ("profile", "warmup", -1, "a whole number >= 0"),
        ("profile", "active", 0, "a whole number >= 1"),
        ("profile", "rows", 0, "a whole number >= 1"),
        ("determinism", "resume", "0steps", "longer than 0, or null"),
    ],
)
def test_wrong_settings_are_refused(mode: str, setting: str, value: Any, allowed: str) -> None:
    built: Any = parts(f"debug={mode}").debug
    with pytest.raises(SettingError, match=f"{setting} must be {allowed}"):
        replace(built, **{setting: value})


def test_a_network_without_values_has_none_that_is_not_finite() -> None:
    """Operations are counted on one; in shards, at a growth, there is no other."""
    assert finite([torch.empty(2, device="meta"), torch.ones(2)])
    assert not finite([torch.empty(2, device="meta"), torch.tensor(float("nan"))])
