"""A loss or a gradient that is not finite never reaches the weights, and what follows from it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from run_kit import Finished, Spy, branch, differences, digest, parts, resume, train
from torch import Tensor, nn

from progtrain import steps, withheld
from progtrain.errors import DivergedError, SettingError
from progtrain.nonfinite import ROLLBACKS, ROW, SKIPPED
from progtrain.run import Run
from progtrain.settings import Checkpoints, Nonfinite
from progtrain.withheld import Statistics, nonfinite, step_unless, undone_where

NORMED = ("growth=none", "model=cnn", "model.width=4", "train.ema=0.9")
GROWN = (
    "growth=schedule",
    "model=cnn",
    "model.width=4",
    "growth.stages.deeper.at=4steps",
    "growth.stages.wider.at=20steps",
    "warmup=cosine_ramp",
    "warmup.length=3steps",
)
SKIP = "nonfinite.policy=skip"
BACK = ("nonfinite.policy=rollback", "nonfinite.back=4steps")
NAN = float("nan")


@contextmanager
def nan_in_the_data(*at: int) -> Generator[None]:
    """The inputs of steps `at` (from 1) are not numbers: nor are loss, gradients and statistics."""
    usual = steps.training_batch

    def batch(run: Run, *rest: Any) -> tuple[Tensor, Tensor]:
        x, y = usual(run, *rest)
        return (x * NAN if run.clock.step + 1 in at else x), y

    with mock.patch.object(steps, "training_batch", batch):
        yield


@contextmanager
def nan_in_one_gradient(name: str, *at: int) -> Generator[None]:
    """One number of one gradient of steps `at` is infinite; the loss is finite."""
    usual = steps._withheld

    def withheld(run: Run, *rest: Any) -> Any:
        gradient = run.optimizer.parameters[name].grad
        assert gradient is not None
        if run.clock.step + 1 in at:
            gradient.view(-1)[-1] = float("inf")
        return usual(run, *rest)

    with mock.patch.object(steps, "_withheld", withheld):
        yield


def states(made: Any, directory: Path) -> tuple[Finished, dict[int, dict[str, str]]]:
    """A run and all of its state after every step."""
    seen: dict[int, dict[str, str]] = {}

    def act(call: str, run: Run) -> None:
        if call in ("started", "stepped"):
            seen[run.clock.step] = digest(run)

    return train(made, directory, Spy(act)), seen


def trained(state: dict[str, str]) -> dict[str, str]:
    """What an optimizer step changes: weights, statistics, moments, counts, the average."""
    return {n: v for n, v in state.items() if n.startswith(("model/", "optimizer/", "average/"))}


INJECTED: list[Callable[..., Any]] = [
    nan_in_the_data,
    lambda *at: nan_in_one_gradient("head.weight", *at),
]


@pytest.mark.parametrize("injected", INJECTED, ids=["data", "gradient"])
def test_raise_ends_the_run_before_the_update_and_names_the_batch(
    injected: Any, tmp_path: Path
) -> None:
    made = parts(*NORMED, "checkpoint.every=5steps")
    seen: dict[int, dict[str, str]] = {}
    spy = Spy(lambda call, run: seen.setdefault(run.clock.step, digest(run)) and None)
    with injected(7), pytest.raises(DivergedError) as caught:
        train(made, tmp_path, spy)
    text = str(caught.value)
    assert caught.value.exit_code == 3
    for part in ("at step 7 (stage 1, lr", "Nothing was updated", "step_00000005", "diverged.json"):
        assert part in text
    assert spy.run is not None and spy.run.clock.step == 6
    assert trained(digest(spy.run)) == trained(seen[6])
    told = json.loads((tmp_path / "diverged.json").read_text())
    data = spy.run.clock.now.samples
    from progtrain.start import batches_of

    batches = batches_of(made, made.hardware.open())
    assert told["step"] == 7 and told["batch"] == batches.indices(data, 8).tolist()
    assert told["weights_finite"] is True
    if injected is not nan_in_the_data:
        assert told["gradients_not_finite"] == ["head.weight"]
    assert resume(made, tmp_path).run.clock.step == 24


@pytest.mark.parametrize("injected", INJECTED, ids=["data", "gradient"])
def test_skip_leaves_out_exactly_that_step(injected: Any, tmp_path: Path) -> None:
    made = parts(*NORMED, SKIP, "train.clip=1.0")
    with injected(7):
        finished, seen = states(made, tmp_path)
    assert finished.run.clock.step == 24 and finished.run.memory[SKIPPED] == 1
    assert trained(seen[7]) == trained(seen[6])
    assert trained(seen[8]) != trained(seen[7])
    counts = {v for n, v in seen[24].items() if n.endswith("/step")}
    whole = states(parts(*NORMED, SKIP, "train.clip=1.0", "train.duration=23steps"), tmp_path / "w")
    assert counts == {v for n, v in whole[1][23].items() if n.endswith("/step")}
    assert any("nonfinite" in text and "step 7" in text for text in finished.spy.found_texts)


def test_a_step_that_is_left_out_is_as_if_its_batch_had_not_been(tmp_path: Path) -> None:
    """Without dropout and statistics of time, the weights are those of a run without that batch."""
    made = parts("growth=none", SKIP, "scheduler=constant", "train.duration=8steps")
    with nan_in_the_data(3):
        skipped, _ = states(made, tmp_path / "one")
    usual = steps.training_batch

    def passed_over(run: Run, batches: Any, part: int, size: int) -> tuple[Tensor, Tensor]:
        run = replace(run, clock=replace(run.clock))
        if run.clock.step >= 2:
            run.clock.now = replace(run.clock.now, samples=run.clock.now.samples + size)
        return usual(run, batches, part, size)

    with mock.patch.object(steps, "training_batch", passed_over):
        other, _ = states(parts("growth=none", "scheduler=constant", "train.duration=7steps"),
                          tmp_path / "other")  # fmt: skip
    assert trained(digest(skipped.run)) == trained(digest(other.run))


def test_too_many_skips_end_the_run(tmp_path: Path) -> None:
    with nan_in_the_data(3, 4, 5), pytest.raises(DivergedError, match=r"in_a_row=2"):
        train(parts(*NORMED, SKIP, "nonfinite.in_a_row=2"), tmp_path / "row")
    with nan_in_the_data(3, 5, 7), pytest.raises(DivergedError, match=r"most=2.*most"):
        train(parts(*NORMED, SKIP, "nonfinite.most=2"), tmp_path / "most")
    with nan_in_the_data(3, 4, 6, 7):
        run = train(parts(*NORMED, SKIP, "nonfinite.in_a_row=2"), tmp_path / "good").run
    assert run.memory[SKIPPED] == 4 and run.memory[ROW] == 0


@pytest.mark.parametrize("step", [2, 3, 6, 11])
@pytest.mark.parametrize("policy", [(SKIP,), BACK], ids=["skip", "rollback"])
def test_a_run_with_withheld_steps_resumes_in_the_same_bits(
    policy: tuple[str, ...], step: int, tmp_path: Path
) -> None:
    made = parts(*GROWN, *policy, "train.ema=0.9")
    every = replace(made, checkpoint=Checkpoints("1steps", 1000))
    with nan_in_the_data(3, 10):
        whole = train(every, tmp_path / "whole")
        again = resume(made, branch(whole.directory, step, tmp_path / "again"))
    assert whole.run.memory[SKIPPED] == 2
    assert not differences(whole, again)


def test_rollback_goes_back_to_an_anchor_and_on_with_later_data(tmp_path: Path) -> None:
    made = parts(*NORMED, *BACK)
    with nan_in_the_data(11):
        finished, seen = states(made, tmp_path)
    run = finished.run
    assert run.memory[ROLLBACKS] == 1 and run.clock.step == 24
    assert trained(seen[11]) == trained(seen[4])  # anchors at 4 and 8; the older one
    assert trained(seen[12]) != trained(seen[5])  # other data
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = [row for row in rows if row["kind"] == "rollback"]
    assert len(told) == 1 and "step 4" in told[0]["text"] and told[0]["step"] == 11
    assert run.clock.now.flops == pytest.approx(24 * run.step_flops)  # what was lost is charged


def test_a_rollback_undoes_the_growths_since(tmp_path: Path) -> None:
    with nan_in_the_data(6):
        run = train(parts(*GROWN, *BACK), tmp_path).run
    first = run.events[0]
    assert first.stage == "deeper" and first.undone and not first.blocks
    assert [e.stage for e in run.grown] == ["deeper", "wider"]  # it has grown again
    assert all(bool(t.isfinite().all()) for t in run.model.state_dict().values())


def test_too_many_rollbacks_end_the_run(tmp_path: Path) -> None:
    with nan_in_the_data(6, 8), pytest.raises(DivergedError, match=r"rollbacks=1"):
        train(parts(*NORMED, *BACK, "nonfinite.rollbacks=1"), tmp_path)


def spoilt(at: int) -> Spy:
    """A spy that makes a weight infinite after step `at`."""

    def act(call: str, run: Run) -> None:
        if call == "stepped" and run.clock.step == at:
            with torch.no_grad():
                next(iter(run.model.parameters())).view(-1)[0] = float("inf")

    return Spy(act)


@pytest.mark.parametrize(
    ("policy", "told"),
    [(("nonfinite.policy=raise",), "at step 7"), ((SKIP,), "5 is the most"), (BACK, "")],
    ids=["raise", "skip", "rollback"],
)
def test_weights_that_are_not_finite_after_a_growth(
    policy: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    made = parts(*GROWN, *policy)
    if not told:
        run = train(made, tmp_path, spoilt(6)).run
        assert run.clock.step == 24 and run.memory[ROLLBACKS] == 1
        assert all(bool(t.isfinite().all()) for t in run.model.state_dict().values())
        return
    with pytest.raises(DivergedError, match=told):
        train(made, tmp_path, spoilt(6))
    if "raise" in policy[0]:
        facts = json.loads((tmp_path / "diverged.json").read_text())
        assert facts["weights_finite"] is False and facts["steps_since_growth"] == 3


@contextmanager
def nan_in_validation(*at: int) -> Generator[None]:
    from progtrain import boundary

    usual = boundary.evaluate

    def evaluate(run: Run, *rest: Any) -> dict[str, float]:
        found = usual(run, *rest)
        return {n: NAN for n in found} if run.clock.step in at else found

    with mock.patch.object(boundary, "evaluate", evaluate):
        yield


def test_a_validation_that_is_not_finite(tmp_path: Path) -> None:
    with nan_in_validation(10), pytest.raises(DivergedError, match=r"val/loss.*step 10"):
        train(parts(*NORMED), tmp_path / "raise")
    with nan_in_validation(10):
        skipped = train(parts(*NORMED, SKIP, "train.metric=val/loss", "train.mode=min"),
                        tmp_path / "skip").run  # fmt: skip
        back = train(parts(*NORMED, *BACK), tmp_path / "back").run
    assert skipped.best_metric is not None and skipped.best_metric < 10
    assert back.memory[ROLLBACKS] == 1 and back.clock.step == 24


def test_what_is_not_finite_counts_in_no_statistic(tmp_path: Path) -> None:
    """A plateau is one with or without an evaluation in it that is not finite."""
    plateau = (
        "growth=plateau",
        "growth.trigger.patience=2",
        "growth.trigger.metric=val/loss",
        "train.evaluate_every=2steps",
        "optimizer.lr=1e-9",
        "model.norm=none",
    )
    made = parts(*plateau, SKIP)
    with nan_in_validation(2, 6):
        grown = train(made, tmp_path).run.events
    assert [event.moment.step for event in grown][:1] == [10]  # 4 is the best; 8 and 10 beat it not


def test_a_candidate_of_a_trial_whose_steps_are_withheld_loses(tmp_path: Path) -> None:
    made = parts("growth=budget", "growth/choice=trial", "growth.choice.steps=3",
                 "growth.trigger.interval=4steps", "growth.max_stages=1",
                 "growth.max_params=100000", "warmup=none")  # fmt: skip
    usual = steps.training_batch

    def batch(run: Run, *rest: Any) -> tuple[Tensor, Tensor]:
        x, y = usual(run, *rest)
        tried = run.events and run.events[-1].stage == "wider" and not run.anchors
        return (x * NAN if tried and run.clock.step < 8 else x), y

    with mock.patch.object(steps, "training_batch", batch):
        run = train(made, tmp_path).run
    assert [event.stage for event in run.events] == ["deeper"]
    assert SKIPPED not in run.memory


@pytest.mark.parametrize(
    ("setting", "value"),
    [("policy", "ignore"), ("in_a_row", 0), ("most", 1.5), ("back", "0steps"), ("rollbacks", 0)],
)
def test_settings_say_what_they_take(setting: str, value: Any) -> None:
    with pytest.raises(SettingError, match=setting):
        Nonfinite(**{setting: value})


# Masked steps: what a GPU does, on tensors of a CPU.


@pytest.mark.parametrize("kind", ["AdamW", "SGD", "RMSprop", "NAdam"])
def test_a_masked_step_changes_nothing_and_the_next_one_is_whole(kind: str) -> None:
    def made() -> tuple[list[Tensor], torch.optim.Optimizer]:
        torch.manual_seed(0)
        weights = [torch.randn(3, 4, requires_grad=True), torch.randn(4, requires_grad=True)]
        more = {"momentum": 0.9} if kind == "SGD" else {}
        return weights, getattr(torch.optim, kind)(weights, lr=0.1, **more)

    def step(weights: list[Tensor], optimizer: Any, flag: float, number: int) -> None:
        for weight in weights:
            weight.grad = torch.full_like(weight, NAN if flag else float(number))
        step_unless(optimizer, torch.tensor(flag))

    (one, first), (other, second) = made(), made()
    for flag, number in ((1.0, 0), (0.0, 1), (1.0, 2), (1.0, 3), (0.0, 4)):
        step(one, first, flag, number)
        if not flag:
            step(other, second, 0.0, number)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def several() -> list[Tensor]:
    """Small and large, of several types, transposed, with one number, with none."""
    given = [torch.arange(n * 1.0) + 1 for n in (3, 9, 2, 4, 1, 4, 0)]
    return [
        *given,
        torch.ones(()),
        torch.arange(6.0).view(2, 3).t(),
        given[0].double(),
        torch.ones(5),
    ]


@pytest.mark.parametrize("flag", [0.0, 1.0])
def test_tensors_of_any_kind_are_put_back_together(
    flag: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withheld, "_SMALL", 5)
    monkeypatch.setattr(withheld, "_PIECE", 8)
    tensors = several()
    with undone_where(torch.tensor(flag), tensors):
        for each in tensors:
            each.mul_(NAN)
    for now, before in zip(tensors, several(), strict=True):
        assert torch.equal(now, before) if flag else bool(now.isnan().all())


def test_a_masked_step_of_many_small_tensors_takes_few_operations_more_than_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    operations = importlib.import_module("launches").Operations
    counts: list[int] = []
    for many in (1, 41):
        weights = [torch.ones(4, requires_grad=True) for _ in range(many)]
        optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, foreach=True)
        for weight in weights:
            weight.grad = torch.ones(4)
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        optimizer.step()
        with operations() as plain:
            optimizer.step()
        with operations() as masked:
            step_unless(optimizer, torch.tensor(0.0))
        counts.append(masked.count - plain.count)
    assert counts[1] <= counts[0] + 4


@pytest.mark.parametrize("withheld", [False, True, torch.tensor(0.0), torch.tensor(1.0)])
def test_what_a_forward_pass_changed_is_put_back_where_its_step_is_withheld(
    withheld: bool | Tensor,
) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(5))
    model.register_buffer("turned", torch.arange(6.0).view(2, 3).t())
    model.register_buffer("own", torch.zeros(2), persistent=False)  # of the step, not of the run
    for _ in range(2):  # the second time with what is remembered of the network
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        kept = Statistics.of(model)
        changed = {name: buffer * 2 + 1 for name, buffer in before.items()}
        changed["0.running_var"][1] = float("nan")
        model.load_state_dict(changed, strict=False)
        model.get_buffer("own").fill_(7.0)
        kept.put_back(withheld)
        wanted = before if withheld else changed
        for name, buffer in model.named_buffers():
            expected = torch.full((2,), 7.0) if name == "own" else wanted[name]
            torch.testing.assert_close(buffer, expected, rtol=0, atol=0, equal_nan=True)


def test_one_number_of_any_tensor_and_type_is_found() -> None:
    good = [torch.ones(3), torch.ones(2, dtype=torch.float64), torch.full((2,), 1e38)]
    assert not bool(nonfinite(good))
    for bad in (NAN, float("inf"), -float("inf")):
        for index in range(3):
            spoilt = [each.clone() for each in good]
            spoilt[index][-1] = bad
            assert bool(nonfinite(spoilt))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ON_GPU = ("hardware=gpu", "hardware.deterministic=true")


@needs_gpu
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon", "torch"])
def test_on_a_gpu_a_step_is_left_out_whole(optimizer: str, tmp_path: Path) -> None:
    made = parts(*GROWN, SKIP, *ON_GPU, "train.ema=0.9", f"optimizer={optimizer}")
    with nan_in_the_data(3, 11):
        finished, seen = states(made, tmp_path)
    run = finished.run
    assert run.memory[SKIPPED] == 2 and run.clock.step == 24
    for step in (3, 11):
        assert trained(seen[step]) == trained(seen[step - 1]) != trained(seen[step + 1])


@needs_gpu
def test_on_a_gpu_a_run_ends_before_the_update_and_waits_for_nothing(tmp_path: Path) -> None:
    usual = steps._withheld
    applied = steps.undone_where

    def unhurried(run: Run, setup: Any, loss: Tensor) -> Any:
        torch.cuda.set_sync_debug_mode("error" if run.clock.step > 0 else "default")
        try:
            return usual(run, setup, loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    made = parts(*NORMED, *ON_GPU, "checkpoint.every=5steps")
    seen: dict[int, dict[str, str]] = {}
    spy = Spy(lambda call, run: seen.setdefault(run.clock.step, digest(run)) and None)
    with (
        nan_in_the_data(7),
        mock.patch.object(steps, "_withheld", unhurried),
        pytest.raises(DivergedError, match="at step 7 ") as caught,
    ):
        train(made, tmp_path, spy)
    assert applied is steps.undone_where and "Nothing was updated" in str(caught.value)
    assert spy.run is not None and trained(digest(spy.run)) == trained(seen[6])


@needs_gpu
@pytest.mark.parametrize("kind", ["AdamW", "SlicedAdamW"])
def test_an_optimizer_on_a_gpu_steps_without_waiting(kind: str) -> None:
    from progtrain.optimizers.adamw import AdamW

    weight = torch.nn.Parameter(torch.ones(3, 4, device="cuda"))
    sliced = frozenset({"w"} if kind == "SlicedAdamW" else ())
    (optimizer,) = AdamW().build({"w": weight}, sliced).optimizers
    for number, flag in ((1.0, 0.0), (NAN, 1.0), (1.0, 0.0)):
        weight.grad = torch.full_like(weight, number)
        before = weight.detach().clone()
        flagged = torch.tensor(flag, device="cuda")
        torch.cuda.set_sync_debug_mode("error" if optimizer.state else "default")
        try:
            step_unless(optimizer, flagged)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(weight, before) is bool(flag)
