"""Monitors that add numbers to the row of each evaluation: gradients, rates, speed, memory, MFU."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from run_kit import Spy, at_step, differences, parts, resume, train

from progtrain import boundary, steps
from progtrain.account import EVALUATION
from progtrain.errors import ConfigError, SettingError
from progtrain.monitors.gradients import Gradients
from progtrain.monitors.mfu import MFU, PEAKS, known_peak
from progtrain.report import words
from progtrain.run import Run
from progtrain.spent import Spent

PLAIN = ("growth=none", "train.evaluate_every=4steps", "train.duration=12steps")
ALL = "monitor=[gradients,learning_rate,throughput,memory,mfu]"


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def named(row: dict[str, Any], prefix: str) -> dict[str, float]:
    return {n.removeprefix(prefix): v for n, v in row.items() if n.startswith(prefix)}


@pytest.mark.parametrize("clip", ["0.0", "0.01"])
def test_gradient_norms_are_those_of_the_last_step_before_clipping(
    clip: str, tmp_path: Path
) -> None:
    true: dict[int, dict[str, torch.Tensor]] = {}
    usual = steps._measure_gradients

    def spied(run: Run, *rest: Any) -> None:
        grads = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
        true[run.clock.step + 1] = grads
        usual(run, *rest)

    with mock.patch.object(steps, "_measure_gradients", spied):
        train(parts(*PLAIN, "monitor=gradients", f"train.clip={clip}"), tmp_path)
    for row in rows(tmp_path):
        told, grads = named(row, "gradients/"), true[row["step"]]
        layers = {name.rpartition(".")[0] for name in grads}
        assert set(told) == {*layers, "total"}
        for layer in layers:
            own = [g for n, g in grads.items() if n.rpartition(".")[0] == layer]
            wanted = torch.cat([g.flatten() for g in own]).norm()
            assert told[layer] == pytest.approx(float(wanted), rel=1e-3)
        whole = torch.cat([g.flatten() for g in grads.values()]).norm()
        assert told["total"] == pytest.approx(float(whole), rel=1e-3)


def test_a_layer_over_the_limit_is_told_once(tmp_path: Path) -> None:
    found = train(parts(*PLAIN, "monitor=gradients", "monitor.gradients.limit=1e-6"),
                  tmp_path).spy.found_texts  # fmt: skip
    told = [text for text in found if "gradient of" in text]
    layers = set(named(rows(tmp_path)[0], "gradients/")) - {"total"}
    assert len(told) == len(layers) and all("step 4" in text for text in told)
    quiet = train(
        parts(*PLAIN, "monitor=gradients", "monitor.gradients.limit=null"), tmp_path / "n"
    )
    assert not [text for text in quiet.spy.found_texts if "gradient of" in text]


def test_learning_rates_are_those_that_the_steps_had(tmp_path: Path) -> None:
    made = parts("growth=schedule", "growth.stages.deeper.at=4steps", "warmup=lr",
                 "warmup.length=12steps", "growth.stages.wider=null", "monitor=learning_rate",
                 "train.evaluate_every=6steps")  # fmt: skip
    seen: dict[int, dict[int, float]] = {}

    def act(call: str, run: Run) -> None:
        if call == "stepped":
            alive = {-1, *(event.index for event in run.living)}
            groups = [g for g in run.optimizer.groups() if g.get("event", -1) in alive]
            seen[run.clock.step] = {g.get("event", -1): g["lr"] for g in groups}

    train(made, tmp_path, Spy(act))
    for row in rows(tmp_path):
        told = named(row, "learning_rate/")
        assert told["adamw"] == seen[row["step"]][-1]
        if 0 in seen[row["step"]]:
            assert told["adamw/growth_1"] == seen[row["step"]][0]
    assert any("adamw/growth_1" in named(row, "learning_rate/") for row in rows(tmp_path))


def test_throughput_counts_the_time_of_training_alone(tmp_path: Path) -> None:
    usual = boundary.evaluate

    def slow(*arguments: Any) -> dict[str, float]:
        time.sleep(0.2)
        return usual(*arguments)

    with mock.patch.object(boundary, "evaluate", slow):
        finished = train(parts(*PLAIN, "monitor=throughput"), tmp_path)
    first, *_, last = (named(row, "throughput/") for row in rows(tmp_path))
    assert first["samples_per_s"] == pytest.approx(8 * first["steps_per_s"])
    assert last["steps_per_s"] > 4 / 0.2  # else the evaluation is in it
    assert 0.1 < last["evaluation_share"] < 1 and last["growth_share"] == 0
    result = json.loads((tmp_path / "result.json").read_text())["measured"]
    assert result == pytest.approx(finished.run.spent.summary())
    assert "samples/s" in dict(words.summary(finished.run))["speed"]


def test_tokens_are_counted_where_there_is_a_target_a_position(tmp_path: Path) -> None:
    text = ("model=gpt", "data=text", "data.length=16", "data.bytes=4000")
    train(parts(*PLAIN, *text, "monitor=throughput"), tmp_path)
    told = named(rows(tmp_path)[0], "throughput/")
    assert told["tokens_per_s"] == pytest.approx(16 * told["samples_per_s"])


def test_spent_knows_what_a_lap_trained() -> None:
    spent, readings = Spent(), iter((0.0, 1.0, 3.0, 10.0, 10.0))
    with mock.patch("progtrain.spent.time.perf_counter", lambda: next(readings)):
        from progtrain.clock import Moment

        spent.begin(Moment())
        with spent.of(EVALUATION):
            pass
        spent.end(Moment(4, 32, 1e6, 0.0))
    assert spent.lap is not None
    assert (spent.lap.steps, spent.lap.samples, spent.lap.seconds) == (4, 32, 8.0)
    assert spent.share(EVALUATION) == pytest.approx(0.2)


def test_mfu_is_flops_over_seconds_over_the_peak(tmp_path: Path) -> None:
    run = train(parts(*PLAIN, "monitor=mfu", "monitor.mfu.peak_tflops=2.0"), tmp_path).run
    told = named(rows(tmp_path)[-1], "mfu/")
    assert told["share"] == pytest.approx(told["tflops"] / 2)
    lap = run.spent.lap
    assert lap is not None and lap.flops == pytest.approx(4 * run.step_flops)
    assert told["tflops"] == pytest.approx(lap.flops / lap.seconds / 1e12)
    engine = parts("hardware=cpu").hardware.open()
    assert 1e-3 < known_peak(engine) < 100
    assert "MFU" in dict(words.summary(run))["speed"]


def test_the_peak_of_an_unknown_gpu_is_asked_for() -> None:
    engine: Any = mock.Mock(device=torch.device("cuda"))
    engine.settings.precision = "bf16"
    setup: Any = mock.Mock(engine=engine)
    with mock.patch("torch.cuda.get_device_name", lambda _: "NVIDIA Unheard"):
        with pytest.raises(ConfigError, match="peak_tflops"):
            MFU().check(setup)
        MFU(peak_tflops=100.0).check(setup)
    with mock.patch("torch.cuda.get_device_name", lambda _: "NVIDIA H100 80GB HBM3"):
        MFU().check(setup)
        assert known_peak(engine) == PEAKS["H100"][0]


def test_memory_is_the_most_of_the_process(tmp_path: Path) -> None:
    run = train(parts(*PLAIN, "monitor=memory"), tmp_path).run
    peaks = [named(row, "memory/")["peak_mib"] for row in rows(tmp_path)]
    assert peaks == sorted(peaks) and 50 < peaks[-1] < 1e6
    assert run.spent.summary()["memory/peak_mib"] == max(peaks)


def test_what_is_measured_is_no_part_of_the_run(tmp_path: Path) -> None:
    """The same bits with all of them as with none; and nothing of wall-clock time is stored."""
    measured = train(parts(*PLAIN, ALL), tmp_path / "all").run
    plain = train(parts(*PLAIN, "monitor=none"), tmp_path / "none").run
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, measured.model.state_dict()[name])
    assert not [n for seen in measured.history for n in seen.metrics if n.startswith("throughput")]
    assert not [
        n for n in rows(tmp_path / "none")[0] if "/" in n and not n.startswith(("val", "tr"))
    ]


@pytest.mark.parametrize("step", [7, 11])
def test_a_run_stopped_after_its_last_step_tells_the_same_numbers(
    step: int, tmp_path: Path
) -> None:
    made = parts("growth=none", "train.evaluate_every=4steps", "train.duration=11steps",
                 "monitor=[gradients,learning_rate]", "train.clip=0.1")  # fmt: skip
    whole = train(made, tmp_path / "whole")
    stop = at_step(step, lambda: signal.raise_signal(signal.SIGTERM))
    train(made, tmp_path / "run", stop)
    assert not differences(whole, resume(made, tmp_path / "run"))


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [(Gradients, "limit", 0.0), (Gradients, "limit", float("nan")), (MFU, "peak_tflops", -1.0)],
)
def test_settings_say_what_they_take(kind: Any, setting: str, value: Any) -> None:
    with pytest.raises(SettingError, match=setting):
        kind(**{setting: value})
