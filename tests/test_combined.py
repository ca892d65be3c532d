"""growth=combined: grows on a plateau at full difficulty, and the data begin easy again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_kit import Spy, parts, train

from progtrain.errors import ConfigError
from progtrain.run import Run, StopReason

COMBINED = (
    "growth=combined",
    "curriculum=difficulty",
    "curriculum/score=function",
    "curriculum.length=4steps",
    "growth.trigger.patience=1",
    "growth.trigger.min_delta=10",
    "growth.consolidation=2steps",
    "train.evaluate_every=1steps",
)


def growths(directory: Path, *overrides: str) -> list[int]:
    run = train(parts(*COMBINED, *overrides), directory, store=False).run
    return [event.moment.step for event in run.events]


def test_no_growth_before_full_difficulty_however_long_the_plateau(tmp_path: Path) -> None:
    # 4 steps to full difficulty; an observation, and one that is no better
    assert growths(tmp_path / "a", "growth.max_stages=1") == [6]
    assert growths(tmp_path / "b", "growth.max_stages=1", "curriculum.length=9steps") == [11]
    assert growths(tmp_path / "c", "growth.max_stages=1", "growth.trigger.patience=3") == [8]
    assert growths(tmp_path / "d", "curriculum.length=100%") == []


class Always:
    """A trigger that looks at nothing."""

    def due(self, run: Run) -> str | None:
        return "always"


def test_a_trigger_that_looks_at_no_observation_waits_for_full_difficulty_too(
    tmp_path: Path,
) -> None:
    made = parts(*COMBINED, "growth.max_stages=1")
    growth: Any = made.growth
    made = replace(made, growth=replace(growth, trigger=Always()))
    run = train(made, tmp_path, store=False).run
    assert [event.moment.step for event in run.events] == [4]


def test_a_cycle_begins_when_the_growth_is_integrated(tmp_path: Path) -> None:
    # grown at 6, integrated at 8, full difficulty at 12, plateau at 14
    assert growths(tmp_path) == [6, 14]


def test_the_best_value_on_easy_data_is_no_mark_for_hard_ones(tmp_path: Path) -> None:
    """All that was observed before full difficulty is far better; without it nothing stalls."""

    def flatter(call: str, run: Run) -> None:
        if call == "observed":
            hard = run.clock.step > 4
            metrics = run.history[-1].metrics
            assert isinstance(metrics, dict)
            metrics["val/accuracy"] = run.clock.step / 1000 if hard else 1.0

    rising = ("growth.trigger.min_delta=0", "growth.max_stages=1")
    spied = train(parts(*COMBINED, *rising), tmp_path, Spy(flatter), store=False)
    assert spied.run.events == []


def test_other_policies_leave_the_curriculum_running(tmp_path: Path) -> None:
    overrides = (*COMBINED[1:4], "growth=schedule", "growth.stages.deeper.at=2steps")
    rows = train(parts(*overrides), tmp_path, store=False).spy.rows
    shares = [row["view"][0] for row in rows]
    assert shares[:4] == sorted(shares[:4]) and set(shares[4:]) == {1.0}
    combined = train(parts(*COMBINED), tmp_path / "combined", store=False).spy.rows
    assert [step for step, row in enumerate(combined) if row["view"][0] == pytest.approx(0.2)] == [
        0, 6, 7, 8, 14, 15, 16
    ]  # fmt: skip


def test_it_brings_a_curriculum_and_is_refused_without() -> None:
    assert parts("growth=combined").curriculum == parts("curriculum=difficulty").curriculum
    with pytest.raises(ConfigError, match=r"growth\.curriculum must be a curriculum.*difficulty"):
        parts("growth=combined", "curriculum=none")


@pytest.mark.parametrize("stages", ["0", "-1"])
def test_a_number_of_stages_that_cannot_be_is_refused(stages: str) -> None:
    with pytest.raises(ConfigError, match="max_stages"):
        parts(*COMBINED, f"growth.max_stages={stages}")


def test_it_ends_as_other_policies_do(tmp_path: Path) -> None:
    run = train(parts(*COMBINED, "growth.max_stages=1"), tmp_path / "one", store=False).run
    assert run.grown_out is StopReason.MAX_STAGES
    run = train(parts(*COMBINED), tmp_path / "all", store=False).run
    assert run.grown_out is StopReason.STAGES_DONE
    assert "all data seen" in run.events[0].cause
