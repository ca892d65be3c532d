"""What a run will still see: FLOPs that are left, and lengths compared where the batch grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_kit import Spy, parts, train

from progtrain.clock import Duration
from progtrain.curriculum.forecast import Timeline, stretches
from progtrain.errors import ConfigError
from progtrain.growth import budget
from progtrain.growth.budget import flops_left
from progtrain.growth.plan_checks import lived
from progtrain.run import Run

CNN = ("model=cnn", "model.width=4")
DOUBLING = ("curriculum=batch_size", "curriculum.maximum=32", "curriculum.every=4steps")
CHANGING = (
    "curriculum=combination",
    "curriculum.curricula.difficulty=null",
    "curriculum.curricula.image_size.multiple=1",
    "curriculum.curricula.batch_size.every=30%",
    "curriculum.curricula.batch_size.maximum=32",
)


@pytest.mark.parametrize("duration", ["24steps", "7epochs", "300samples"])
@pytest.mark.parametrize("curriculum", [DOUBLING, CHANGING, ("curriculum=none",)], ids=str)
def test_flops_that_are_left_are_those_that_the_run_then_spends(
    curriculum: tuple[str, ...], duration: str, tmp_path: Path
) -> None:
    left: list[float] = []

    def note(call: str, run: Run) -> None:
        if call in ("started", "stepped"):
            left.append(run.clock.now.flops + flops_left(run, run.model))

    made = parts(*CNN, *curriculum, f"train.duration={duration}")
    run = train(made, tmp_path, Spy(note), store=False).run
    assert left == pytest.approx([run.clock.now.flops] * (run.clock.step + 1), rel=1e-12)


@pytest.mark.parametrize("unit", ["flops", "seconds"])
def test_a_run_of_unknown_length_counts_on_with_the_step_it_has(unit: str, tmp_path: Path) -> None:
    made = parts(*CNN, *CHANGING, f"train.duration=1e6{unit}", "stop.max_flops=2e6")
    run = train(made, tmp_path, store=False).run
    assert flops_left(run, run.model) > 0


def test_a_budget_counts_small_images_as_cheap(tmp_path: Path) -> None:
    """A grown network is judged by what it would cost on the images that are still to come."""
    asked: list[float] = []
    spied = budget.flops_left

    def note(run: Run, model: Any) -> float:
        asked.append(spied(run, model))
        return asked[-1]

    growing = ("growth=budget", "growth.max_flops=1e9", "growth.trigger.interval=50%")
    growing = (*growing, "growth.max_stages=1")
    size = ("curriculum=image_size", "curriculum.multiple=1", "curriculum.length=100%")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "flops_left", note)
        train(parts(*CNN, *growing, *size), tmp_path / "small", store=False)
        small, asked = asked, []
        train(parts(*CNN, *growing), tmp_path / "full", store=False)
    # the first questions are about the same networks
    assert small[0] < asked[0] and small[1] < asked[1]


def test_stretches_are_cut_where_batch_or_size_change(tmp_path: Path) -> None:
    seen: list[Any] = []

    def note(call: str, run: Run) -> None:
        if call == "started":
            seen.extend(stretches(run, lambda view: float(view.side or 4)))

    train(parts(*CNN, *CHANGING), tmp_path, Spy(note), store=False)
    # sizes change after 6 and 12 of 24 steps, batches after 7.2 and 14.4
    assert [(s.steps, s.batch_size, s.flops) for s in seen] == [
        (6, 8, 2.0), (2, 8, 3.0), (4, 16, 3.0), (3, 16, 4.0), (9, 32, 4.0)
    ]  # fmt: skip


def a_timeline(tmp_path: Path, *overrides: str) -> Timeline:
    found: list[Timeline] = []

    def note(call: str, run: Run) -> None:
        if call == "started":
            found.append(Timeline.of(run))

    train(parts(*overrides), tmp_path, Spy(note), store=False)
    return found[0]


def after(timeline: Timeline, text: str, sample: float = 0.0) -> float | None:
    return timeline.after(sample, Duration.parse(text, "at"))


def test_steps_are_turned_into_samples_with_the_batch_that_they_have(tmp_path: Path) -> None:
    timeline = a_timeline(tmp_path, *DOUBLING)  # 8 × 4, 16 × 4, then 32
    assert after(timeline, "3steps") == 24
    assert after(timeline, "6steps") == 32 + 32
    assert after(timeline, "10steps") == 32 + 64 + 64
    assert after(timeline, "25%") == 32 + 32
    assert after(timeline, "2steps", 32) == 64
    assert after(timeline, "2epochs") == 98
    assert after(timeline, "1e9flops") is None
    assert timeline.step(64) == 6


def test_steps_cannot_be_compared_where_nobody_knows_when_the_batch_grows(tmp_path: Path) -> None:
    flops = ("train.duration=3e5flops",)
    unknown = a_timeline(tmp_path / "grows", *DOUBLING, *flops)
    assert after(unknown, "3steps") is None and after(unknown, "20samples") == 20
    known = a_timeline(tmp_path / "stays", *flops)
    assert after(known, "3steps") == 24


def test_a_life_that_does_not_fit_is_found_where_the_batch_grows(tmp_path: Path) -> None:
    """4 steps of 8 samples and 4 of 16 lie before a stage at 2 epochs, which is sample 98."""
    stages = ("growth=schedule", "growth.stages.deeper.at=2steps", "growth.stages.wider.at=2epochs")
    fits = parts(*DOUBLING, *stages, "growth.consolidation=6steps")
    assert len(train(fits, tmp_path / "fits", store=False).run.events) == 2
    longer = parts(*DOUBLING, *stages, "growth.consolidation=7steps")
    with pytest.raises(ConfigError, match=r"deeper.*lasts 6 steps from 2steps"):
        train(longer, tmp_path / "longer", store=False)
    with pytest.raises(ConfigError, match="not before the end"):
        late = parts(*DOUBLING, *stages, "growth.stages.wider.at=13epochs")
        train(late, tmp_path / "late", store=False)


def test_an_unknown_length_is_no_life(tmp_path: Path) -> None:
    timeline = a_timeline(tmp_path)
    lasting = [Duration.parse(text, "x") for text in ("2steps", "1e6flops", "5samples")]
    assert lived(8.0, lasting, timeline) == 8 + 16 + 5
