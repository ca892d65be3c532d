"""Metrics: the figure of a split is that of all its targets at once, however they come in."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from growth_kit import a_machine, a_model, make, one_thread  # noqa: F401
from omegaconf import open_dict
from run_kit import CONF, branch, config, differences, options, parts, resume, train
from sklearn.metrics import cohen_kappa_score, f1_score, roc_auc_score, top_k_accuracy_score
from torch import Tensor
from torchmetrics import PearsonCorrCoef
from torchmetrics.classification import (
    MulticlassAUROC,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from progtrain import evaluation
from progtrain.command_line.check import _top_level_problems
from progtrain.errors import ConfigError, SettingError
from progtrain.growth.condition import Condition
from progtrain.growth.triggers import Plateau
from progtrain.metrics import canonical, choosing, instead, logged, names, smaller_is_better
from progtrain.metrics.library import adapted
from progtrain.metrics.tally import Answers, Tally
from progtrain.objective import cross_entropy

# AUROC is asked of classes that no target has
pytestmark = pytest.mark.filterwarnings("ignore:No positive samples")
ROOT = Path(__file__).parent.parent
OURS = tuple(name for name in options("metric") if name != "none")
LIBRARY = "torchmetrics.classification"
CLASSES, BYTES = 7, 3.5
SPLITS = {"in ones": [1] * 101, "uneven": [40, 40, 21], "odd": [7] * 14 + [3], "at once": [101]}


def samples(*shape: int) -> tuple[Tensor, Tensor]:
    """Logits and targets of which about half are found; class 5 is neither target nor answer."""
    draw = torch.Generator().manual_seed(4)
    y = torch.randint(0, 5, shape, generator=draw)
    y[torch.rand(shape, generator=draw) < 0.1] = 6
    logits = torch.randn(*shape, CLASSES, generator=draw, dtype=torch.float64)
    logits[..., 5] = -9.0
    return logits.scatter_add(-1, y[..., None], torch.ones(*shape, 1, dtype=torch.float64)), y


def whole(name: str, logits: Tensor, y: Tensor) -> float:
    """The metric of everything at once, by somebody else's code."""
    z, t = logits.flatten(0, -2).numpy(), y.flatten().numpy()
    shifted = z - z.max(1, keepdims=True)
    chances = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    nats = -chances[np.arange(len(t)), t].mean()
    return {
        "loss": lambda: nats,
        "accuracy": lambda: float(np.mean(z.argmax(1) == t)),
        "top5_accuracy": lambda: top_k_accuracy_score(t, z, k=5, labels=range(CLASSES)),
        "macro_f1": lambda: f1_score(t, z.argmax(1), average="macro"),
        "perplexity": lambda: math.exp(nats),
        "bits_per_byte": lambda: nats / math.log(2) / BYTES,
        "kappa": lambda: cohen_kappa_score(t, z.argmax(1)),
        "auroc": lambda: roc_auc_score(
            np.eye(CLASSES)[t][:, :5], np.exp(chances)[:, :5], average="macro"
        ),
        "largest": lambda: z.max(),
    }[name]()


@dataclass(frozen=True)
class Largest:
    """The largest logit: a state that is no sum."""

    smaller = False
    reductions = {"largest": "max"}  # noqa: RUF012

    def check(self, setup: object) -> None: ...

    def count(self, answers: Answers) -> Mapping[str, Tensor]:
        return {"largest": answers.logits.max()}

    def value(self, states: Mapping[str, Tensor], counted: object) -> float:
        return float(states["largest"])


def every_metric() -> dict[str, Any]:
    ours = {name: make("metric", name) for name in OURS}
    kappa = MulticlassCohenKappa(CLASSES, validate_args=False)
    auroc = MulticlassAUROC(CLASSES, average=None, validate_args=False)
    auroc.compute = lambda compute=auroc.compute: compute()[:5].mean()  # class 5 is no target
    theirs = {"kappa": kappa, "auroc": auroc}
    return ours | {n: adapted(n, each) for n, each in theirs.items()} | {"largest": Largest()}


def counted(
    logits: Tensor, y: Tensor, sizes: list[int], metrics: Mapping[str, Any] | None = None
) -> Tally:
    tally = Tally(every_metric() if metrics is None else metrics, BYTES)
    for z, t in zip(logits.split(sizes), y.split(sizes), strict=True):
        tally.add(Answers.of(z, t, CLASSES), cross_entropy(z, t, "sum"))
    return tally


def assert_whole(tally: Tally, logits: Tensor, y: Tensor) -> None:
    found = tally.figures()
    assert set(found) == {"loss", *every_metric()}
    for name, value in found.items():
        near = 1e-6 if name in ("kappa", "auroc") else 1e-12  # theirs are float32
        assert value == pytest.approx(whole(name, logits, y), rel=near), name


# Counting.


@pytest.mark.parametrize("shape", [(101,), (101, 6)], ids=["one a sample", "one a position"])
@pytest.mark.parametrize("sizes", SPLITS.values(), ids=SPLITS)
def test_a_figure_is_that_of_all_targets_at_once(sizes: list[int], shape: tuple[int, ...]) -> None:
    logits, y = samples(*shape)
    assert_whole(counted(logits, y, sizes), logits, y)


@pytest.mark.parametrize("cut", [1, 50, 100])
def test_two_halves_counted_apart_are_merged(cut: int) -> None:
    logits, y = samples(101)
    one, other = (
        counted(z, t, [len(t)]) for z, t in ((logits[:cut], y[:cut]), (logits[cut:], y[cut:]))
    )
    one.merge(other)
    assert_whole(one, logits, y)


def test_states_of_several_processes_are_reduced() -> None:
    """Three processes with unequal shares; what one of them reduces is the tally of all."""
    logits, y = samples(101)
    shares = [
        counted(z, t, [len(t)])
        for z, t in zip(logits.split([60, 30, 11]), y.split([60, 30, 11]), strict=True)
    ]
    asked: list[list[tuple[Tensor, str]]] = []
    for tally in shares:
        asked.append([])
        tally.reduced(lambda tensor, how, calls=asked[-1]: (calls.append((tensor, how)), tensor)[1])
    joined = {
        "sum": lambda t: torch.stack(t).sum(0),
        "max": lambda t: torch.stack(t).amax(0),
        "cat": torch.cat,
    }
    calls = iter(zip(*asked, strict=True))

    def over(tensor: Tensor, how: str) -> Tensor:
        each = next(calls)
        assert {word for _, word in each} == {how}, "all of them reduce the same, in the same order"
        return joined[how]([t for t, _ in each])

    assert_whole(shares[0].reduced(over), logits, y)


def test_our_macro_f1_is_that_of_torchmetrics_and_needs_no_table_of_classes() -> None:
    logits, y = samples(101)
    theirs = MulticlassF1Score(CLASSES, average="macro")
    tally = counted(logits, y, [101])
    assert tally.figures()["macro_f1"] == pytest.approx(float(theirs(logits, y)), rel=1e-6)
    sizes = {state: tensor.numel() for state, tensor in tally.states["macro_f1"].items()}
    assert sizes == {"right": CLASSES, "found": CLASSES, "true": CLASSES}


def test_a_head_that_lacks_classes_tells_what_it_can() -> None:
    logits, y = samples(101)
    tally = Tally({n: m for n, m in every_metric().items() if n in (*OURS, "kappa")}, BYTES)
    few = logits[:, :4]
    tally.add(Answers.of(few, y, CLASSES), None)
    found = tally.figures()
    assert set(found) == {"accuracy", "macro_f1", "top5_accuracy"}
    assert found["accuracy"] == float((few.argmax(1) == y).double().mean())
    assert found["macro_f1"] == pytest.approx(f1_score(y, few.argmax(1), average="macro"))
    assert found["top5_accuracy"] == float((y < 4).double().mean())


def test_a_perplexity_too_large_is_infinite_and_what_is_undefined_is_left_out() -> None:
    y = torch.zeros(3, dtype=torch.int64)
    logits = torch.tensor([[0.0, 900.0]]).repeat(3, 1)
    found = counted(logits, y, [3], {"perplexity": make("metric", "perplexity")}).figures()
    assert found == {"loss": 900.0, "perplexity": math.inf}
    undefined = mock.Mock(count=lambda answers: {}, value=lambda states, counted: math.nan)
    assert counted(logits, y, [3], {"odd": undefined}).figures() == {"loss": 900.0}


def test_what_is_counted_is_not_read_before_the_end() -> None:
    """Reading waits for the device: nothing of a batch may become a Python number."""
    logits, y = samples(101)
    reads = ["item", "__float__", "__bool__", "__int__", "tolist", "nonzero", "cpu", "numpy"]
    ours = {name: make("metric", name) for name in OURS}
    tally = Tally(ours, BYTES)
    with mock.patch.multiple(
        Tensor, **{n: mock.Mock(side_effect=AssertionError(n)) for n in reads}
    ):
        for z, t in zip(logits.split(20), y.split(20), strict=True):
            tally.add(Answers.of(z, t, CLASSES), cross_entropy(z, t, "sum"))
    assert tally.figures()["accuracy"] == whole("accuracy", logits, y)


# Whole networks.


@pytest.mark.parametrize("size", [1, 5, 1024])
def test_an_evaluation_is_exact_for_every_metric_in_any_batches(size: int) -> None:
    machine = a_machine(a_model("cnn").double(), make("optimizer", "sgd"))
    setup = replace(
        machine.setup,
        metrics={n: make("metric", n) for n in ("accuracy", "macro_f1", "perplexity")},
    )
    split = setup.batches.sets.validation
    x = setup.batches.sets.normalise(split.x).double()
    with (
        mock.patch.object(evaluation, "_EVALUATION_BATCH", size),
        mock.patch.object(
            type(setup.batches),
            "_ready",
            lambda self, x, y: (self.sets.normalise(x).double(), y.long()),
        ),
    ):
        found = evaluation.evaluate_network(machine.run.model, setup, split, "val")
    with torch.no_grad():
        logits = machine.run.model.eval()(x)
    assert len(found) == 4
    for name, value in found.items():
        wanted = whole(name.removeprefix("val/"), logits, split.y)
        assert value == pytest.approx(wanted, rel=1e-12), name


def test_the_training_loss_is_the_mean_over_all_samples_of_a_step(tmp_path: Path) -> None:
    """Two forward passes of 8 see what one of 16 sees."""
    base = (
        "growth=none",
        "model.norm=none",
        "train.duration=1steps",
        "optimizer=sgd",
        "optimizer.lr=1e-9",
    )
    apart = train(
        parts(*base, "train.batch_size=8", "train.accumulate=2"), tmp_path / "a", store=False
    )
    whole_step = train(parts(*base, "train.batch_size=16"), tmp_path / "b", store=False)
    one, other = (ended.run.history[-1].metrics["train/loss"] for ended in (apart, whole_step))
    assert one == pytest.approx(other, rel=1e-6)


EVERY = (
    "metric=[accuracy,top5_accuracy,macro_f1,perplexity]",
    "data=digits",
    "model.width=4",
    "train.ema=0.9",
    "train.metric=val/macro_f1",
    "train.duration=12steps",
    "train.evaluate_every=2steps",
    "optimizer.lr=0.03",
)
PLATEAU = (
    "growth=plateau",
    "growth.trigger.patience=1",
    "growth.trigger.min_delta=1",
    "growth.consolidation=1steps",
)
NAMES = ("loss", "accuracy", "top5_accuracy", "macro_f1", "perplexity")


def test_a_run_with_every_metric_tells_them_all_and_resumes_in_the_same_bits(
    tmp_path: Path,
) -> None:
    made = parts(
        *EVERY, *PLATEAU, "growth.keep_if='gain > -1 and macro_f1 >= 0'", "checkpoint.every=5steps"
    )
    ended = train(made, tmp_path / "whole")
    assert "val/macro_f1 has not improved" in ended.spy.causes[0]
    assert ended.run.grown, "growths are kept by the condition"
    row = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])
    named = {f"val/{name}" for name in NAMES} | {f"val/ema/{name}" for name in NAMES}
    assert named | {"train/loss"} == {n for n in row if n.startswith(("val/", "train/"))}
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["metrics"] == {n: row[n] for n in (*named, "train/loss")}
    assert result["metric_name"] == "val/macro_f1" and result["metric"] == row["val/macro_f1"]
    begun = resume(made, branch(tmp_path / "whole", 10, tmp_path / "again"))
    assert not differences(ended, begun)


TEXT = ("model=gpt", "data=text", "data.length=8", "data.bytes=2000", "data.test=0.1")


def test_the_test_split_has_every_metric_at_the_end(tmp_path: Path) -> None:
    chosen = ("metric=[accuracy,macro_f1,perplexity]", "train.columns=[loss,test/macro_f1]")
    ended = train(parts(*TEXT, *chosen, "train.duration=3steps"), tmp_path, store=False)
    assert ended.run.test is not None
    names_there = ("loss", "accuracy", "macro_f1", "perplexity")
    assert list(ended.run.test) == [f"test/{name}" for name in names_there]
    assert ended.run.test["test/perplexity"] == math.exp(ended.run.test["test/loss"])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test"] == ended.run.test and result["columns"] == ["val/loss", "test/macro_f1"]


def test_a_growth_that_has_not_paid_by_macro_f1_is_undone(tmp_path: Path) -> None:
    ended = train(parts(*EVERY, *PLATEAU, "growth.keep_if='gain > 1'"), tmp_path, store=False)
    assert ended.run.events and not ended.run.grown
    assert all("gain > 1" in event.undone for event in ended.run.events)


def test_less_perplexity_is_better_for_whoever_asks(tmp_path: Path) -> None:
    more = (
        "metric=perplexity",
        "train.metric=perplexity",
        "stop.target=9.9",
        "monitor=contribution",
    )
    ended = train(parts(*EVERY, *PLATEAU, *more), tmp_path, store=False)
    seen = [o.metrics["val/perplexity"] for o in ended.run.history]
    assert ended.run.mode == "min" and ended.run.best_metric == min(seen)
    assert ended.run.stopped is not None and ended.run.stopped.name == "TARGET"
    assert seen[-1] <= 9.9 < seen[-2], "it stopped at the first value that is small enough"


HEADED = (
    "+growth.stages.outputs={_target_: progtrain.growth.schedule.At, at: 4steps, operator: ${head}}"
)
SCHEDULE = ("growth=schedule", "growth.stages.deeper=null", "growth.stages.wider=null", HEADED)


def test_outputs_that_join_are_classes_from_then_on(tmp_path: Path) -> None:
    made = parts(
        *EVERY,
        *SCHEDULE,
        "growth.stages.outputs.at=9steps",
        "head=outputs",
        "head.add=40",
        "warmup=none",
        "train.ema=0",
    )
    ended = train(made, tmp_path, store=False)
    assert ended.run.grown and ended.run.history[-1].moment.step > ended.run.grown[0].moment.step
    split = (sets := made.data.load()).validation
    with torch.no_grad():
        logits = ended.run.model.eval()(sets.normalise(split.x))
    assert logits.shape[1] == 50 and (logits.argmax(1) >= 10).any()
    wanted = f1_score(split.y, logits.argmax(1), average="macro")
    assert ended.run.history[-1].metrics["val/macro_f1"] == pytest.approx(wanted, rel=1e-12)


def test_every_head_has_every_metric_and_may_be_the_one_that_is_watched(tmp_path: Path) -> None:
    watched = ("train.metric=val/second/macro_f1", "growth.keep_if='gain > -1'")
    ended = train(
        parts(*EVERY, *SCHEDULE, "head=second", "warmup=none", *watched), tmp_path, store=False
    )
    last = ended.run.history[-1].metrics
    for head in ("first", "second", "ema/first", "ema/second"):
        assert {f"val/{head}/{name}" for name in NAMES} <= set(last)
    assert ended.run.last_metric == last["val/second/macro_f1"]


def test_a_metric_of_a_library_refuses_outputs_that_join(tmp_path: Path) -> None:
    kappa = f"+metric.kappa={{_target_: {LIBRARY}.MulticlassCohenKappa, num_classes: 10}}"
    made = parts(*EVERY, *SCHEDULE, "head=outputs", "plugins=[torchmetrics]", "train.ema=0", kappa)
    with pytest.raises(ConfigError, match=r"metric\.kappa counts 10 classes.*has 11 outputs"):
        train(made, tmp_path, store=False)


# What fits what.


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("metric=[accuracy,top5_accuracy]",), "more than 5 classes, and the data have 4"),
        (("metric=[accuracy,bits_per_byte]",), "is for text"),
        (
            ("train.metric=train/loss", "growth=schedule", "growth.keep_if='gain > 0'"),
            "must be one of its",
        ),
        (
            (
                "plugins=[torchmetrics]",
                f"+metric.f={{_target_: {LIBRARY}.MulticlassF1Score, num_classes: 9}}",
            ),
            r"metric\.f\.num_classes must be that of the data, 4, got 9",
        ),
        (
            ("plugins=[torchmetrics]", "+metric.r={_target_: torchmetrics.PearsonCorrCoef}"),
            r"metric\.r: PearsonCorrCoef cannot be counted batch by batch \(mean_x",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_the_first_step(
    overrides: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        train(parts(*overrides), tmp_path, store=False)


def test_what_is_no_metric_or_gives_several_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"metric\.x is a int, which is no metric"):
        adapted("x", 1)
    assert adapted("r", PearsonCorrCoef()).reductions["mean_x"] == ""
    logits, y = samples(101)
    table = adapted("table", MulticlassConfusionMatrix(CLASSES))
    with pytest.raises(ConfigError, match=r"metric\.table gives 49 numbers"):
        counted(logits, y, [101], {"table": table}).figures()


# Names and directions.


def test_the_known_names_are_those_that_are_chosen() -> None:
    with choosing({"macro_f1": False, "perplexity": True}, ["accuracy", "macro_f1"]):
        assert canonical("macro_f1") == canonical("val/macro_f1") == "val/macro_f1"
        for name in (
            "val/ema/macro_f1",
            "val/second/perplexity",
            "val/ema/second/loss",
            "train/loss",
        ):
            assert canonical(name) == name
        assert set(logged()) >= {"val/loss", "val/perplexity", "val/ema/perplexity"}
        for name in ("accuracy", "val/accuracy", "test/loss", "train/macro_f1", "val/loss/", "a/b"):
            assert canonical(name) is None
        assert (
            names.tested("test/macro_f1") == "test/macro_f1"
            and names.tested("test/accuracy") is None
        )
        assert names.tested("perplexity") == "val/perplexity"
        assert smaller_is_better("val/second/perplexity") and not smaller_is_better("macro_f1")
        assert instead("accuracy") == " To count it: metric=[macro_f1,perplexity,accuracy]."
        assert instead("val/acuracy").endswith(
            "To count it: metric=[macro_f1,perplexity,accuracy]."
        )
        assert instead("val/perplxity") == " Did you mean 'val/perplexity'?"
        assert "once, at the end" in instead("test/loss")
        assert instead("qqq") == ""
    assert canonical("accuracy") == "val/accuracy" and canonical("macro_f1") is None


ADD = r"To count it: metric=\[accuracy,macro_f1\]"


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.metric=val/macro_f1",),
        ("train.metric=macro_f1",),
        ("train.columns=[val/loss,test/macro_f1]",),
        ("growth=plateau", "growth.trigger.metric=val/macro_f1"),
        ("growth=schedule", "growth.keep_if='macro_f1 > 0.5'"),
        ("growth=sequential", "growth.stages.deeper.when='best(val/macro_f1) > 0.5'"),
        ("growth=sequential", "growth.stages.deeper.when='val/macro_f2 > 0.5'"),
    ],
)
def test_a_metric_that_is_not_counted_is_refused_with_what_to_add(
    overrides: tuple[str, ...],
) -> None:
    with pytest.raises(ConfigError, match=ADD):
        parts(*overrides)
    right = [text.replace("macro_f2", "macro_f1") for text in overrides]
    parts("metric=[accuracy,macro_f1]", *right)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("val/acuracy", "Did you mean 'val/accuracy'"),
        ("test/accuracy", "once, at the end"),
        ("val/ema/accuracy", r"Set train\.ema"),
        ("''", "a metric that evaluations log"),
    ],
)
def test_a_primary_metric_that_no_evaluation_logs_is_refused(metric: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.metric must be .*{told}"):
        parts(f"train.metric={metric}")


@pytest.mark.parametrize(
    ("chosen", "metric", "mode"),
    [
        ("accuracy", "accuracy", "max"),
        ("accuracy", "val/loss", "min"),
        ("macro_f1", "val/macro_f1", "max"),
        ("perplexity", "val/second/perplexity", "min"),
        ("none", "train/loss", "min"),
    ],
)
def test_the_mode_follows_the_metric(chosen: str, metric: str, mode: str) -> None:
    made = parts(
        f"metric={chosen}",
        f"train.metric={metric}",
        "growth=plateau",
        "scheduler=reduce_on_plateau",
    )
    trigger, scheduler = getattr(made.growth, "trigger"), made.scheduler  # noqa: B009
    assert made.train.mode == trigger.mode == getattr(scheduler, "mode") == mode  # noqa: B009
    assert made.config["train"]["mode"] == mode
    assert trigger.metric == made.train.metric == canonical_of(metric)
    assert not made.notes
    wrong = parts(
        f"metric={chosen}",
        f"train.metric={metric}",
        f"train.mode={'max' if mode == 'min' else 'min'}",
    )
    assert wrong.train.mode != mode and f"of {metric} is better" in " ".join(wrong.notes)


def canonical_of(metric: str) -> str:
    return metric if "/" in metric else f"val/{metric}"


def test_a_condition_sees_less_perplexity_as_better() -> None:
    machine = a_machine(a_model("mlp_none"), make("optimizer", "sgd"))
    run = machine.run
    from progtrain.clock import Moment
    from progtrain.run import Observation

    for step, value in enumerate((9.0, 4.0, 6.0), 1):
        run.history.append(Observation(Moment(step), 0.0, {"val/perplexity": value}))
    with choosing({"perplexity": True}):
        assert Condition.parse("best(perplexity) == 4 and flat(perplexity, 1)", "when").holds(run)
    with choosing({"perplexity": False}):
        assert Condition.parse("best(perplexity) == 9", "when").holds(run)
    with pytest.raises(SettingError, match="A metric is needed here"):
        Condition.parse("best(perplexity) == 4 and perplexity < 1", "when")
    with pytest.raises(SettingError, match="metric"):
        Plateau(metric="val/perplexity")


@pytest.mark.parametrize("name", ["loss", "ema", "a-b", "distillation"])
def test_a_name_that_would_be_read_as_another_is_refused(name: str) -> None:
    composed = config("metric=[accuracy,macro_f1]")
    assert not list(_top_level_problems(composed))
    with open_dict(composed):
        composed.metric[name] = composed.metric.accuracy
    (told,) = _top_level_problems(composed)
    assert told.startswith(f"metric.{name} needs another name")


# What a user sees.


def command(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "progtrain", *arguments],
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_metrics_of_torchmetrics_and_of_the_users_own_work_as_the_guide_says(
    tmp_path: Path,
) -> None:
    (code,), yamls, commands = blocks("python"), blocks("yaml"), blocks("bash")
    (tmp_path / "my_metrics.py").write_text(code)
    (tmp_path / "my_conf" / "metric").mkdir(parents=True)
    for text in yamls:
        name = re.match(r"# @package metric\.(\w+)", text)
        assert name is not None
        (tmp_path / "my_conf" / "metric" / f"{name[1]}.yaml").write_text(text)
    short = [
        "model=mlp",
        "model.width=4",
        "train.duration=20steps",
        "hardware.threads=1",
        "hardware=cpu",
    ]
    for number, line in enumerate(commands):
        place = f"hydra.run.dir={tmp_path / str(number)}"
        done = command(*shlex.split(line)[1:], *short, place, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / str(number) / "result.json").read_text())
        name = "kappa" if "kappa" in line else "worst_class"
        assert result["metric_name"] == f"val/{name}" and 0 <= result["metric"] <= 1
        assert result["mode"] == "max" and f"val/{name}" in result["metrics"]


def test_who_asks_for_no_class_of_torchmetrics_does_not_import_it() -> None:
    every = ",".join(OURS)
    code = (
        "import sys; from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(CONF)!r}, version_base='1.3'):\n"
        f"    config = compose('config', ['metric=[{every}]'])\n"
        "from progtrain.build import build; made = build(config)\n"
        "import progtrain.start, progtrain.job\n"
        "sys.exit('torchmetrics' in sys.modules or len(made.metrics) != 5)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
