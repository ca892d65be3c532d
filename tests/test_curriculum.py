"""What a step sees of the training data, and what it costs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from run_kit import Finished, Spy, parts, train

from progtrain import steps
from progtrain.clock import Clock, Duration, Moment, Unit
from progtrain.curriculum.batch_size import BatchSize
from progtrain.curriculum.image_size import ImageSize
from progtrain.curriculum.pacings.competence import Competence
from progtrain.curriculum.pacings.linear import Linear
from progtrain.curriculum.pacings.root import Root
from progtrain.curriculum.pacings.step import Step
from progtrain.curriculum.seen import cut, easy, image_size, shaped
from progtrain.curriculum.sequence_length import SequenceLength
from progtrain.curriculum.view import View
from progtrain.data.sets import Batches
from progtrain.errors import ConfigError
from progtrain.flops import forward_flops, training_flops
from progtrain.report import words
from progtrain.run import Run

CNN = ("model=cnn", "model.width=4")
TEXT = ("model=gpt", "data=text", "data.length=8", "data.bytes=2000")
EASY_FIRST = ("curriculum=difficulty", "curriculum/score=function", "curriculum.length=12steps")
SMALL = (*CNN, "curriculum=image_size", "curriculum.multiple=1", "curriculum.length=8steps")
DOUBLING = ("curriculum=batch_size", "curriculum.maximum=32", "curriculum.every=4steps")
SAMPLES = 49  # to train on


class Eyes:
    """Notes the batches that training sees: indices, shapes."""

    def __init__(self) -> None:
        self.indices: list[list[int]] = []
        self.shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def watch(self, made: object, directory: Path, spy: Spy | None = None) -> Finished:
        taken, seen = Batches.taken, steps.training_batch

        def note(batches: Batches, index: torch.Tensor, *more: object):
            self.indices.append(index.tolist())
            return taken(batches, index, *more)  # type: ignore[arg-type]

        def look(*args: object):
            x, y = seen(*args)  # type: ignore[arg-type]
            self.shapes.append((tuple(x.shape), tuple(y.shape)))
            return x, y

        with (
            mock.patch.object(Batches, "taken", note),
            mock.patch.object(steps, "training_batch", look),
        ):
            finished = train(made, directory, spy, store=False)  # type: ignore[arg-type]
        self.indices = self.indices[1:]  # without the probe
        return finished


@pytest.mark.parametrize(
    ("pacing", "at_half"),
    [
        (Linear(), 0.6),
        (Root(), 0.2 + 0.8 * 0.5**0.5),
        (Step(4), 0.6),
        (Step(1), 0.2),
        (Competence(1), 0.6),
        (Competence(2), ((1 + 0.2**2) / 2) ** 0.5),
        (Competence(3), ((1 + 0.2**3) / 2) ** (1 / 3)),
    ],
    ids=str,
)
def test_a_pacing_begins_at_its_start_and_follows_its_formula(
    pacing: Linear | Root | Step | Competence, at_half: float
) -> None:
    assert pacing.share(0.2, 0) == pytest.approx(0.2, abs=1e-12)
    assert pacing.share(0.2, 0.5) == pytest.approx(at_half, abs=1e-12)
    shares = [pacing.share(0.2, i / 50) for i in range(50)]
    assert shares == sorted(shares) and shares[-1] <= 1


def test_a_step_pacing_has_its_last_step_at_the_end_of_the_length() -> None:
    assert Step(4).share(0.2, 0.999) == pytest.approx(0.8)
    assert [Step(2).share(0.5, p) for p in (0.49, 0.5)] == [0.5, 0.75]


def test_easy_draws_are_different_samples_of_the_easiest_share_and_all_alike_likely() -> None:
    order = torch.arange(40).flip(0)  # sample 39 is the easiest
    counts: Counter[int] = Counter()
    for position in range(3000):
        drawn = easy(order, 0.25, 7, position, 4).tolist()
        assert len(set(drawn)) == 4
        counts.update(drawn)
    assert set(counts) == set(range(30, 40))
    assert max(abs(n - 1200) for n in counts.values()) < 6 * (1200 * 0.6) ** 0.5
    assert easy(order, 0.25, 7, 5, 4).equal(easy(order, 0.25, 7, 5, 4))
    assert not easy(order, 0.25, 8, 5, 4).equal(easy(order, 0.25, 7, 5, 4))
    assert sorted(easy(order, 0.01, 7, 0, 4).tolist()) == [36, 37, 38, 39]  # as many as a batch


def test_training_sees_the_easiest_share_and_then_the_stream_without_a_curriculum(
    tmp_path: Path,
) -> None:
    eyes, plain = Eyes(), Eyes()
    finished = eyes.watch(parts("curriculum/pacing=linear", *EASY_FIRST), tmp_path / "easy")
    plain.watch(parts(), tmp_path / "plain")
    order = finished.run.order
    assert order is not None and sorted(order.tolist()) == list(range(SAMPLES))
    for step, batch in enumerate(eyes.indices[:12]):
        share = 0.2 + 0.8 * step / 12
        count = max(8, -(-share * SAMPLES // 1))
        assert set(batch) <= set(order[: int(count)].tolist()), step
        assert len(set(batch)) == 8
    assert eyes.indices[12:] == plain.indices[12:]
    assert eyes.indices[:12] != plain.indices[:12]


def test_a_curriculum_that_is_over_leaves_the_run_as_it_is_without_one(tmp_path: Path) -> None:
    made = parts(*EASY_FIRST)
    over = replace(made, curriculum=replace(made.curriculum, length="1e-9steps"))  # type: ignore[type-var]
    with mock.patch("progtrain.clock.Clock.progress", lambda *_: 1.0):
        one = train(over, tmp_path / "over", store=False)
    other = train(parts(), tmp_path / "none", store=False)
    weights = [{k: v for k, v in f.spy.digest.items() if k != "order"} for f in (one, other)]
    assert weights[0] == weights[1]


def test_no_sample_is_lost_or_repeated_where_the_batch_grows(tmp_path: Path) -> None:
    eyes = Eyes()
    batch = ("train.batch_size=4", "train.accumulate=2", "curriculum.maximum=16")
    made = parts(*DOUBLING, *batch, "train.duration=6epochs")
    finished = eyes.watch(made, tmp_path)
    sizes = [len(batch) for batch in eyes.indices]
    assert {4, 8, 16} <= set(sizes) and sizes == sorted(sizes)
    stream = [i for batch in eyes.indices for i in batch]
    assert len(stream) == finished.run.clock.now.samples >= 6 * SAMPLES
    for epoch in range(6):
        assert sorted(stream[epoch * SAMPLES : (epoch + 1) * SAMPLES]) == list(range(SAMPLES))
    assert finished.run.clock.epoch == pytest.approx(len(stream) / SAMPLES)


def test_the_batch_doubles_with_the_first_step_after_its_time(tmp_path: Path) -> None:
    even = train(parts(*DOUBLING), tmp_path / "even", store=False).spy.rows
    assert [row["view"][3] for row in even] == [8] * 4 + [16] * 4 + [32] * 16
    milestones = ("curriculum.every=null", "curriculum.milestones=[3steps,50%]")
    at = train(parts(*DOUBLING, *milestones), tmp_path / "at", store=False).spy.rows
    assert [row["view"][3] for row in at] == [8] * 3 + [16] * 9 + [32] * 12
    capped = train(parts(*DOUBLING, "curriculum.maximum=20"), tmp_path / "capped", store=False)
    assert [row["view"][3] for row in capped.spy.rows][-1] == 20


@pytest.mark.parametrize(("rule", "power"), [("none", 0), ("sqrt", 0.5), ("linear", 1)])
def test_the_learning_rate_follows_the_batch(rule: str, power: float, tmp_path: Path) -> None:
    overrides = (*DOUBLING, f"curriculum.lr={rule}", "scheduler=constant")
    rows = train(parts(*overrides), tmp_path, store=False).spy.rows
    rates = [rows[step]["rate"] for step in (0, 4, 8)]
    assert rates == pytest.approx([1, 2**power, 4**power])


def test_images_grow_in_steps_and_each_step_is_charged_for_its_own_size(tmp_path: Path) -> None:
    eyes, spy = Eyes(), Spy()
    spent: list[float] = []
    spy.act = lambda call, run: spent.append(run.clock.now.flops) if call == "stepped" else None
    finished = eyes.watch(parts(*SMALL), tmp_path, spy)
    sides = [2] * 4 + [3] * 4 + [4] * 16
    assert [x for x, _ in eyes.shapes] == [(8, 1, side, side) for side in sides]
    model = finished.run.model
    cost = {side: training_flops(model, torch.zeros(2, 1, side, side)) for side in (2, 3, 4)}
    assert cost[2] < cost[3] < cost[4] == finished.run.flops
    steps_of = torch.tensor([0.0, *spent], dtype=torch.float64).diff().tolist()
    assert steps_of == [8 * cost[side] for side in sides]


def test_a_growth_makes_small_steps_dearer_and_a_frozen_host_cheaper_while_it_is_frozen(
    tmp_path: Path,
) -> None:
    spent: list[tuple[float, float]] = []

    def note(call: str, run: Run) -> None:
        if call == "stepped":
            spent.append((run.clock.now.flops, run.view_flops or run.flops))

    overrides = ("growth=schedule", "growth.stages.deeper.at=2steps", "curriculum.length=100%")
    frozen = ("warmup=frozen_host", "warmup.isolation=9steps", "growth.stages.wider.at=1e20flops")
    finished = train(parts(*SMALL, *overrides, *frozen), tmp_path, Spy(note), store=False)
    network = parts(*SMALL, *overrides, *frozen).model_factory({"width": 2, "depth": 2})
    with mock.patch("progtrain.flops._COUNTED", {}):
        wanted = training_flops(network, torch.zeros(2, 1, 3, 3))
    assert finished.run.events[0].stage == "deeper"
    assert spent[20][1] == wanted > spent[1][1]
    assert spent[5][1] < training_flops(network, torch.zeros(2, 1, 2, 2))  # isolated


def test_a_teacher_is_charged_for_the_size_it_sees(tmp_path: Path) -> None:
    spent: list[float] = []

    def note(call: str, run: Run) -> None:
        if call == "stepped":
            spent.append(run.clock.now.flops)

    taught = (
        "growth=schedule",
        "growth.stages.deeper.at=6steps",
        "transfer=distill",
        "transfer.length=null",
    )
    late = ("growth.stages.wider.at=1e20flops", "curriculum.length=100%", "warmup=none")
    made = parts(*SMALL, *taught, *late)
    finished = train(made, tmp_path, Spy(note), store=False)
    (teacher,) = finished.run.teachers
    x = torch.zeros(2, 1, 3, 3)
    cost = training_flops(finished.run.model, x) + forward_flops(teacher.model, x)
    assert forward_flops(teacher.model, x) < teacher.flops
    assert spent[15] - spent[14] == 8 * cost


def test_candidates_of_a_trial_are_charged_for_their_own_network_at_the_size_they_see(
    tmp_path: Path,
) -> None:
    charged: list[tuple[int, float]] = []
    tick = Clock.tick

    def note(clock: Clock, samples: int, flops: float, *rest: Any) -> None:
        charged.append((clock.step, flops))
        tick(clock, samples, flops, *rest)

    trial = ("growth=budget", "growth.max_params=9000", "growth/choice=trial")
    few = ("growth.choice.steps=2", "growth.max_stages=1", "growth.trigger.interval=6steps")
    made = parts(*SMALL, *trial, *few, "curriculum.length=100%")
    with mock.patch.object(Clock, "tick", note):
        finished = train(made, tmp_path, store=False)
    (event,) = finished.run.events
    at_growth = [flops for step, flops in charged if step == event.moment.step]
    after = next(flops for step, flops in reversed(charged) if step == event.moment.step)
    assert len(at_growth) == 3 and after in at_growth[:2]  # two tried, one of them taken
    assert at_growth[0] != at_growth[1]


def test_sequences_are_cut_with_their_targets(tmp_path: Path) -> None:
    eyes = Eyes()
    overrides = ("curriculum=sequence_length", "curriculum.multiple=3", "curriculum.length=8steps")
    eyes.watch(parts(*TEXT, *overrides), tmp_path)
    lengths = [2] * 4 + [5] * 4 + [8] * 16
    assert eyes.shapes == [((8, n), (8, n)) for n in lengths]
    x = torch.arange(12).reshape(2, 6)
    assert cut(x, View(length=2)).tolist() == [[0, 1], [6, 7]]
    assert cut(torch.arange(2), View(length=1)).tolist() == [0, 1]  # a target a sample stays


def test_images_are_averaged_and_keep_their_proportions() -> None:
    x = torch.zeros(1, 1, 4, 8)
    x[..., ::4] = 1.0  # whoever only interpolates between neighbours sees nothing of it
    small = shaped(x, View(side=1))
    assert small.shape == (1, 1, 1, 2)
    assert small.sub(0.25).abs().max() < 0.1
    assert image_size(4, 8, 3) == (3, 6) and image_size(5, 4, 2) == (2, 2)
    assert shaped(x, View()) is x


def test_evaluation_is_at_the_full_size(tmp_path: Path) -> None:
    shapes: set[tuple[int, ...]] = set()
    every = Batches.every

    def note(batches: Batches, *given: Any):
        for x, y in every(batches, *given):
            shapes.add(tuple(x.shape[1:]))
            yield x, y

    with mock.patch.object(Batches, "every", note):
        train(parts(*SMALL, "curriculum.length=100%"), tmp_path, store=False)
    assert shapes == {(1, 4, 4)}


def test_a_combination_merges_and_is_over_with_the_last(tmp_path: Path) -> None:
    run = train(parts(), tmp_path, store=False).run
    run.clock = Clock(Duration(24, Unit.STEP), SAMPLES, Moment(6, 48))
    curricula = "curriculum.curricula"
    made = parts(
        "curriculum=combination",
        f"{curricula}.batch_size.every=3steps",
        f"{curricula}.batch_size.maximum=16",
        f"{curricula}.difficulty.length=12steps",
        f"{curricula}.image_size=null",
    )
    share = ((1 + 0.2**2) / 2) ** 0.5
    view = made.curriculum.view(run, Moment())
    assert view.share == pytest.approx(share)
    assert replace(view, share=1.0) == View(batch_size=16, rate=1.0, progress=0.5)
    assert made.curriculum.sets == {"share", "batch_size", "rate"}


def test_two_curricula_of_the_same_side_are_refused() -> None:
    again = "+curriculum.curricula.again={_target_: progtrain.curriculum.image_size.ImageSize}"
    told = r"curriculum\.curricula\.again must be of another side of the data than 'image_size'"
    with pytest.raises(ConfigError, match=told):
        parts("curriculum=combination", again)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("curriculum=image_size",), r"curriculum\.start=2: this model cannot run.*model=cnn"),
        (("curriculum=image_size", *TEXT), "needs images.*sequence_length"),
        (("curriculum=sequence_length", *CNN), "needs sequences.*image_size"),
        ((*SMALL, "curriculum.start=4"), r"curriculum\.start=4 must be less than the full size.*4"),
        (("curriculum=batch_size", "curriculum.maximum=64"), "64 samples, more than the 49.*=49"),
        ((*DOUBLING, "train.accumulate=2"), "64 samples, more than the 49 training.*=24"),
    ],
    ids=str,
)
@pytest.mark.parametrize("task", ["train", "plan"])
def test_what_cannot_work_is_refused_before_the_first_step(
    overrides: tuple[str, ...], told: str, task: str, tmp_path: Path
) -> None:
    spy = Spy()
    with pytest.raises(ConfigError, match=told):
        train(parts(*overrides, f"task={task}"), tmp_path, spy, store=False)
    assert not spy.rows and spy.run is None


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ImageSize(start=0), "start must be a whole number"),
        (lambda: ImageSize(start=1.5), "start must be a whole number"),
        (lambda: SequenceLength(multiple=0), "multiple must be"),
        (lambda: SequenceLength(length="0steps"), "length must be longer"),
        (lambda: BatchSize(8, maximum=4), "maximum must be a whole number >= 8"),
        (lambda: BatchSize(8, every=None), "one of the two"),
        (lambda: BatchSize(8, milestones=["1steps"]), "one of the two"),
        (lambda: BatchSize(8, every="0steps"), "every must be longer"),
        (lambda: BatchSize(8, lr="cubic"), "lr must be one of none, sqrt, linear"),
        (lambda: Root(0), "exponent"),
        (lambda: Step(0), "steps"),
        (lambda: Competence(0), "power"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_class(make: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()  # type: ignore[operator]


def test_no_step_is_taken_that_passes_the_flop_limit_at_the_size_it_has(tmp_path: Path) -> None:
    whole = train(parts(*SMALL), tmp_path / "whole", store=False)
    spent: list[float] = []

    def note(call: str, run: Run) -> None:
        if call == "stepped":
            spent.append(run.clock.now.flops)

    train(parts(*SMALL), tmp_path / "noted", Spy(note), store=False)
    assert whole.run.clock.step == 24
    for step in (3, 6, 10):  # exactly enough for so many steps
        limited = train(
            parts(*SMALL, f"stop.max_flops={spent[step - 1]}"), tmp_path / f"{step}", store=False
        )
        assert limited.run.clock.step == step


def test_what_a_step_sees_is_told_on_the_bar_and_stored(tmp_path: Path) -> None:
    told: list[str] = []

    def note(call: str, run: Run) -> None:
        if call == "stepped" and run.clock.step == 5:
            told.extend(words.view(run))

    train(parts(*SMALL), tmp_path, Spy(note), store=False)
    assert told == ["3 px"]
    run = train(parts(*DOUBLING), tmp_path / "batch", store=False).run
    assert words.view(run) == ["batch 32"]
    run.view = View(share=0.4, length=7)
    assert words.view(run) == ["data 40%", "length 7"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["view/side"] for row in rows][:2] == [3, None]
