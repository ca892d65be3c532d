"""Folders of runs through `compare`: arms, verdicts, what is unfair, and the JSON file."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import page_kit
import pytest
from comparison_kit import BUDGETS, FULL, Fake, loss_at, world
from rich.console import Console

from progtrain.comparison import verdict
from progtrain.comparison.compare import compare, to_json
from progtrain.comparison.margin import floor
from progtrain.comparison.result import Arm, Comparison, Estimate, Kind
from progtrain.errors import ConfigError
from progtrain.report.comparison import print_comparison


def grown_of(comparison: Comparison) -> Arm:
    (arm,) = (arm for arm in comparison.arms if arm.kind is Kind.GROWN)
    return arm


def reasons(place: Path) -> dict[str, str]:
    return {reason.what: reason.text for reason in compare([place], None).unfair}


def test_a_fair_comparison_recovers_the_saving_and_has_nothing_against_it(tmp_path: Path) -> None:
    told = compare([world(tmp_path / "runs", saved=0.25)], None)
    arm = grown_of(told)
    assert arm.saving is not None and arm.saving.low is not None and arm.saving.high is not None
    assert arm.saving.low < 0.25 < arm.saving.high and not told.unfair
    assert told.verdict.startswith("Growing paid") and "of the compute at equal loss" in arm.verdict
    kinds = [arm.kind for arm in told.arms]
    assert kinds == [Kind.BASELINE] * 4 + [Kind.FIXED, Kind.GROWN]
    assert arm.not_worse is False and arm.at_equal_steps is not None
    assert arm.at_equal_steps.against.endswith("train.duration=100steps at equal steps")
    assert told.margin == pytest.approx(told.arms[3].quality.std)  # type: ignore[union-attr]
    assert [f.name for f in told.frontiers] == ["baseline", "best fixed size"]
    assert arm.runs[0].growths[0].params_after == 1000 and len(arm.runs[0].rows) == 2
    assert told.commands == (f"progtrain task=compare runs={tmp_path / 'runs'}",)
    assert compare([tmp_path / "runs"], 0.2).arms[-1].not_worse is True


@pytest.mark.parametrize(
    ("saved", "noise", "words"),
    [
        (-0.15, 0.002, "Growing did not pay: growth=schedule train.duration=100steps costs 1"),
        (0.0, 0.01, "is not distinguishable from training from scratch"),
    ],
)
def test_verdicts_of_what_does_not_pay(
    saved: float, noise: float, words: str, tmp_path: Path
) -> None:
    told = compare([world(tmp_path / "runs", saved=saved, noise=noise)], None)
    assert words in told.verdict
    assert "less compute" in told.verdict or "no saving is shown" in told.verdict


def judged(*arms: Arm) -> str:
    return verdict.overall(arms, "val/loss", ())


def test_the_best_of_many_pays_only_where_the_correction_leaves_it() -> None:
    """Six arms that do nothing have a best one, too."""
    saved = page_kit.arm("best", Kind.GROWN, 0.95)  # saves 23 % [11, 34], p = 0.026 after Holm
    assert saved.at_equal_flops is not None
    lucky = replace(saved, at_equal_flops=replace(saved.at_equal_flops, p_holm=0.21))
    other = replace(lucky, name="other", saving=Estimate(0.02, -0.1, 0.12))
    assert judged(saved, other).startswith("Growing paid in 1 of 2 grown arms: best saves 23 %")
    told = judged(lucky, other)
    assert told.startswith("No saving is shown: best saves 23 %") and "p = 0.21 after Holm" in told
    assert judged(lucky).startswith("Growing paid: best saves 23 %")  # nothing to correct for


def test_without_a_price_the_verdict_is_that_at_equal_flops() -> None:
    arm = page_kit.arm("one", Kind.GROWN, 0.95)
    assert arm.at_equal_flops is not None
    none = replace(arm, saving=None, saving_note="Add a budget.")
    better = replace(none, at_equal_flops=replace(arm.at_equal_flops, estimate=Estimate(-0.1)))
    unclear = replace(none, at_equal_flops=replace(arm.at_equal_flops, p_holm=0.4))
    told = "No saving can be told. At equal FLOPs the metric is lower in 1 of 2 grown arms."
    assert judged(better, unclear).startswith(told)
    assert "none of 1 grown arms differs beyond chance. Add a budget." in judged(unclear)


def test_both_yardsticks_stand_in_one_sentence() -> None:
    arm = page_kit.arm("one", Kind.GROWN, 0.95)
    costs, fixed = Estimate(-0.3, -0.5, -0.1), Estimate(-0.2, -0.3, -0.1)
    both = verdict.of_arm(replace(arm, saving=costs, saving_fixed=fixed), "val/loss")
    assert "more compute at equal loss; and costs 20 %" in both
    one = verdict.of_arm(replace(arm, saving_fixed=fixed), "val/loss")
    assert "saves 23 %" in one and "; but costs 20 %" in one
    neither = replace(arm, saving=None, saving_note="No price.", saving_fixed=fixed)
    assert "; but costs 20 %" in verdict.of_arm(neither, "val/loss")


def test_accuracies_are_compared_the_other_way_round(tmp_path: Path) -> None:
    for place in world(tmp_path / "runs", saved=0.25).iterdir():
        result = json.loads((place / "result.json").read_text())
        result |= {"metric": 1 - result["metric"] / 4, "mode": "max"}
        (place / "result.json").write_text(json.dumps(result))
    told = compare([tmp_path / "runs"], None)
    arm = grown_of(told)
    assert arm.saving is not None and arm.saving.value == pytest.approx(0.25, abs=0.03)
    assert arm.at_equal_flops is not None and arm.at_equal_flops.estimate.value > 0
    assert arm.at_equal_steps is not None and arm.at_equal_steps.estimate.value < 0
    assert told.frontiers[0].curve[0][1] == pytest.approx(told.frontiers[0].points[0][1], abs=0.01)


def test_the_least_margin_fits_the_metric(tmp_path: Path) -> None:
    assert floor("val/accuracy", "max", 0.97) == floor("macro_f1", "max", 0.1) == 0.002
    assert floor("val/bleu", "max", 30.0) == pytest.approx(0.06)
    assert floor("val/loss", "min", 4.0) == pytest.approx(0.008)
    assert floor("val/bits_per_byte", "min", 1.2) == pytest.approx(0.0024)
    worse = math.exp(4.0 + floor("val/loss", "min", 4.0)) - math.exp(4.0)  # the same in its unit
    assert floor("test/perplexity", "min", math.exp(4.0)) == pytest.approx(worse, rel=0.01)
    told = compare([world(tmp_path / "runs", noise=0.0)], None)
    assert told.arms[3].quality is not None
    assert told.margin == pytest.approx(0.002 * told.arms[3].quality.mean)


def changed(place: Path, where: int | None, **more: Any) -> Path:
    """Runs of which one, or all, tell something else in a file."""
    for folder in place.iterdir():
        if where is None or folder.name == str(where):
            for name, change in more.items():
                path = folder / f"{name}.json"
                path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return place


def test_a_baseline_that_was_stopped_in_the_middle_of_its_schedule_is_flagged(
    tmp_path: Path,
) -> None:
    place = changed(world(tmp_path / "a"), 12, result={"stop": "FLOPS"})
    found = reasons(place)
    assert "ended early (flops)" in found["undecayed"] and "whole schedule" in found["undecayed"]
    assert "Not to be trusted as it is: undecayed" in compare([place], None).verdict
    grown = changed(world(tmp_path / "b"), 28, result={"stop": "FLOPS"})
    assert "undecayed" not in reasons(grown)  # that would count against growing


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"settings": {"scheduler": "constant"}}, "scheduler=constant"),
        ({"rates": (1.0, 0.8)}, "last learning rate is 80% of its largest"),
        ({"config": {"scheduler": {"length": "200steps"}}}, "200steps is longer than"),
        (
            {"config": {"scheduler": {"_target_": "progtrain.schedulers.constant.Constant"}}},
            "scheduler=constant",
        ),
    ],
)
def test_a_learning_rate_that_has_not_come_down_is_flagged(
    run: dict[str, Any], words: str, tmp_path: Path
) -> None:
    world(tmp_path / "runs")
    Fake(1.6, 1.2 * FULL, duration="120steps", **run).write(tmp_path / "runs" / "90")
    assert words in reasons(tmp_path / "runs")["undecayed"]


def only(place: Path, *kept: int) -> Path:
    """The world without the other runs."""
    for folder in world(place).iterdir():
        if int(folder.name) not in kept:
            shutil.rmtree(folder)
    return place


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    every = range(30)
    assert "nothing_grown" in reasons(only(tmp_path / "a", *range(25)))
    lonely = only(tmp_path / "b", *range(20, 30))
    assert "1,000 parameters" in reasons(lonely)["baseline_missing"]
    arm = grown_of(compare([lonely], None))
    assert arm.saving is None and "No from-scratch run has its final size" in arm.verdict
    far = only(tmp_path / "c", *range(5), *range(15, 30))  # 0.35 and 1.0 are far from 0.6
    short = only(tmp_path / "h", *range(15), *range(25, 30))  # no baseline of 100 steps
    assert grown_of(compare([short], None)).at_equal_steps is None
    assert "600 GFLOP" in reasons(far)["no_baseline_near"]
    assert (
        "model.width" in reasons(only(tmp_path / "d", *range(20), *range(25, 30)))["no_fixed_size"]
    )
    few = only(tmp_path / "e", *(run for run in every if run % 5 < 3))
    assert "3 seeds in some arms are few" in reasons(few)["few_seeds"]
    fewer = only(tmp_path / "f", *(run for run in every if run % 5 < 2))
    assert "too few to say anything" in reasons(fewer)["few_seeds"]
    one = compare([only(tmp_path / "g", *range(0, 30, 5))], None)
    assert "without an interval" in grown_of(one).verdict and "No saving can be told" in one.verdict


def test_data_that_differ_are_flagged(tmp_path: Path) -> None:
    place = world(tmp_path / "a", config={"data": {"seq": 16}})
    assert "data.seq differ" in reasons(place)["data_order"]
    batch = world(tmp_path / "b", config={"train": {"batch_size": 64}})
    assert "train.batch_size differ" in reasons(batch)["data_order"]
    seeds = changed(world(tmp_path / "c"), 29, result={"seed": 7})
    assert "seeds are others" in reasons(seeds)["data_order"]


def test_seeds_that_failed_or_count_twice_are_flagged(tmp_path: Path) -> None:
    place = changed(world(tmp_path / "a"), 29, result={"status": "failed", "error": "NaN"})
    assert "train.duration=100steps 1)" in reasons(place)["failed_runs"]
    assert grown_of(compare([place], None)).quality.n == 4  # type: ignore[union-attr]
    assert "data_order" not in reasons(place)  # it was to see the same data
    (place / "3" / "result.json").unlink()
    told = compare([place], None)
    (lost,) = (run for run in told.arms[0].runs if run.status == "interrupted")
    assert "still runs, or it was killed" in lost.error
    twice = changed(world(tmp_path / "b"), 29, result={"seed": 0})
    assert "Use another seed" in reasons(twice)["repeated_seeds"]
    assert grown_of(compare([twice], None)).quality.n == 4  # type: ignore[union-attr]


def test_a_start_that_is_not_charged_is_flagged(tmp_path: Path) -> None:
    weights = world(tmp_path / "a", config={"model": {"weights": "DEFAULT"}})
    assert "model.weights=DEFAULT" in reasons(weights)["uncharged"]
    begun = world(tmp_path / "b", started={"step": 50, "resumed": True})
    assert "checkpoint of another run" in reasons(begun)["uncharged"]
    paid = world(tmp_path / "c", started={"step": 50, "resumed": True, "flops": 1e11})
    assert "uncharged" not in reasons(paid)


def test_the_best_learning_rate_must_lie_inside_of_its_grid(tmp_path: Path) -> None:
    for index, (rate, loss) in enumerate([(0.001, 2.0), (0.002, 1.8), (0.004, 1.7)]):
        Fake(loss, FULL, settings={"optimizer.lr": str(rate)}).write(tmp_path / f"{index}")
    assert "is the largest tried" in reasons(tmp_path)["lr_edge"]
    Fake(1.9, FULL, settings={"optimizer.lr": "0.008"}).write(tmp_path / "3")
    assert "lr_edge" not in reasons(tmp_path)


def study(place: Path, metric: str = "val/loss", margin: float | None = None) -> Path:
    arms = [{"name": f"scratch_{b}", "kind": "baseline", "overrides": []} for b in BUDGETS]
    arms += [{"name": n, "kind": k, "overrides": []} for n, k in (("s", "fixed"), ("g", "grown"))]
    place.mkdir()
    told = {"name": "mine", "title": "My study", "metric": metric, "mode": "min", "margin": margin,
            "seeds": [0, 1, 2], "arms": arms, "command": "progtrain study=mine"}  # fmt: skip
    (place / "study.json").write_text(json.dumps(told))
    for seed in range(3):
        for share in BUDGETS:
            at = place / f"scratch_{share}" / f"seed_{seed}"
            Fake(loss_at(share * FULL) + 0.001 * seed, share * FULL, seed).write(at)
        Fake(1.9, FULL / 2, seed, params=9).write(place / "s" / f"seed_{seed}")
        grown = loss_at(0.75 * FULL) + 0.001 * seed**2
        Fake(grown, 0.6 * FULL, seed, growth="budget").write(place / "g" / f"seed_{seed}")
    return place


def test_a_study_says_what_its_arms_are(tmp_path: Path) -> None:
    told = compare([study(tmp_path / "mine", margin=0.1)], None)
    assert [arm.name for arm in told.arms] == [
        *sorted(f"scratch_{b}" for b in BUDGETS),
        "s",
        "g",
    ] or [arm.name for arm in told.arms] == ["g", "s", *sorted(f"scratch_{b}" for b in BUDGETS)]
    assert (told.title, told.margin) == ("My study", 0.1)
    assert told.commands[0] == "progtrain study=mine"
    assert grown_of(told).name == "g" and grown_of(told).saving is not None
    assert {a.name for a in told.arms if a.kind is Kind.FIXED} == {"s"}
    inner = compare([tmp_path / "mine" / "g", tmp_path / "mine" / "scratch_0.5"], None)
    assert {arm.name for arm in inner.arms} == {"g", "scratch_0.5"}
    other = study(tmp_path / "other", metric="val/accuracy")
    assert "declares val/accuracy" in reasons(other)["different_metric"]
    (other / "study.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read as a study"):
        compare([other], None)


def test_folders_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        compare([tmp_path / "nowhere"], None)
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds no run"):
        compare([tmp_path / "empty"], None)
    place = changed(world(tmp_path / "a"), 3, result={"metric_name": "val/accuracy"})
    with pytest.raises(ConfigError, match=r"different metrics: .*val/accuracy \(min\) in .*/3"):
        compare([place], None)
    Fake(1.0, FULL).write(tmp_path / "broken" / "0")
    (tmp_path / "broken" / "0" / "result.json").write_text("{")
    with pytest.raises(ConfigError, match="none of 1 runs came to its end"):
        compare([tmp_path / "broken"], None)


def test_the_table_and_the_json_file_tell_the_same_numbers(tmp_path: Path) -> None:
    told = compare([world(tmp_path / "runs")], None)
    stored = json.loads(to_json(told), parse_constant=pytest.fail)
    grown = next(arm for arm in stored["arms"] if arm["kind"] == "grown")
    screen = StringIO()
    print_comparison(told, [tmp_path / "x.json"], Console(width=300, file=screen))
    shown = screen.getvalue()
    saved, quality = grown["saving"], grown["quality"]
    ends = f"{100 * saved['value']:.0f} [{100 * saved['low']:.0f}, {100 * saved['high']:.0f}]"
    difference = grown["at_equal_flops"]["estimate"]["value"]
    for words in (ends, f"{quality['mean']:.4f} ± {quality['std']:.4f}", f"{difference:+.4f}",
                  stored["verdict"], "x.json"):  # fmt: skip
        assert words in shown, words
    assert stored["arms"][0]["saving"] is None and stored["mode"] == "min"
    assert len(stored["arms"][-1]["runs"]) == 5
    narrow = StringIO()
    print_comparison(told, [], Console(width=100, file=narrow))
    shown = narrow.getvalue()
    assert "Left out for width: p (Holm), seconds" in shown and ends in shown
