"""Law 5: every option and every setting bites: with it the run is another one.

`OPTIONS` says for each group where its options can matter; all of them must give different
weights. `SETTINGS` says for each YAML another value of each setting: that must give other weights
than the value in the YAML. Both are complete: a new option or setting without a line here fails.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml
from image_kit import photos
from run_kit import CONF, groups, options, parts, some, train, warming

from progtrain.command_line.names import SEVERAL
from progtrain.data.codec_bpe import BPE
from progtrain.data.vision import Vision
from progtrain.errors import GrowthError

GROWING = ("growth=schedule",)
CNN = ("model=cnn", "model.width=4")
PLAIN = ("growth=schedule", "warmup=none")
DEEPENING = (  # three blocks, and two join: enough for every order to be another one
    *PLAIN,
    "model=resnet",
    "model.width=4",
    "model.stages=1",
    "growth.start={width: 4, depth: 3}",
    "deepen.add=2",
)
PLATEAU = (
    "growth=plateau",
    "growth.trigger.patience=1",
    "growth.trigger.min_delta=10",
    "growth.consolidation=1steps",
    "train.evaluate_every=2steps",
)
BUDGET = ("growth=budget", "growth.max_params=2000", "growth.trigger.interval=2steps")
ALWAYS = "_target_: progtrain.growth.sequential.Conditional, when: 'step >= 0'"
CONDITIONS = (
    "growth.stages.deeper.when='step >= 2'",
    "growth.stages.wider.when='step >= 3'",
    "growth.consolidation=1steps",
    f"+growth.stages.third={{{ALWAYS}, operator: ${{deepen}}}}",  # waits for those before it
    "warmup=none",
)
PROACTIVE = (  # both gains are 0.2% at step 3
    "data=digits",
    "model.norm=none",
    "warmup=none",
    "train.evaluate_every=1steps",
    "growth.consolidation=1steps",
    "growth.trigger.window=3",
    "growth.trigger.exponent=0.004",
)
TRIED = ("growth=budget", "growth/choice=trial", "growth.choice.steps=2", "warmup=none")
FALLING = ("scheduler.patience=0", "train.evaluate_every=2steps")
ON_PLATEAU = ("scheduler=reduce_on_plateau", *FALLING)
LOSS = ("train.metric=val/loss", "train.mode=min")
HEADED = "+growth.stages.head={_target_: progtrain.growth.schedule.At, at: 75%, operator: ${head}}"
INSERTED = (
    "+growth.stages.inserted={_target_: progtrain.growth.schedule.At, at: 75%, operator: ${insert}}"
)
JOINING = (*CNN, "growth=schedule", INSERTED)
EARLY = ("growth=schedule", "warmup=none", "growth.consolidation=1steps", "optimizer.lr=0.03")
RAMPED = ("warmup=linear_ramp", "warmup.length=2steps")
UNSTABLE = (*EARLY, "monitor.instability.window=3", "monitor.instability.every=1",
            "monitor.instability.remedy=rollback")  # fmt: skip


def leaps(one: str) -> tuple[str, ...]:
    """The monitor of instability, blind but to `one`."""
    limits = {"loss": "1e6", "variance": "1e6", "gradient": "1e6"} | {one: "1.0001"}
    return tuple(f"monitor.instability.{name}={limit}" for name, limit in limits.items())


LENIENT = ("growth=none", "debug.loss=1e9", "debug.steps=12")
STILL = ("model.norm=none", "optimizer.lr=1e-9")  # nothing improves
TEXT = ("model=gpt", "data=text", "data.length=8", "data.bytes=2000")
WINDOWS = ("model=gpt", "data=text", "data.length=32", "data.bytes=4000")
EASY_FIRST = ("growth=none", "curriculum=difficulty", "curriculum/score=function")
SCORED = ("growth=none", "curriculum=difficulty", *WINDOWS)
COMBINED = (
    *EASY_FIRST[1:],
    "growth=combined",
    "curriculum.length=2steps",
    "train.evaluate_every=1steps",
    *PLATEAU[1:4],
)


_SCORES = TemporaryDirectory()
_PHOTOS = TemporaryDirectory()


@cache
def score_file(seed: int) -> str:
    """One number for each of the 109 training windows of `SCORED`."""
    path = Path(_SCORES.name) / f"{seed}.txt"
    np.savetxt(path, np.random.default_rng(seed).random(109))
    return str(path)


@cache
def tokenizer_file() -> str:
    """A vocabulary of 256 bytes and two pairs."""
    path = Path(_SCORES.name) / "tokenizer.json"
    path.write_text(BPE.trained(["so so to"], 258).tokenizer, encoding="utf-8")
    return str(path)


@cache
def photo_folder(each: int) -> str:
    """Three classes of images."""
    return str(photos(Path(_PHOTOS.name) / str(each), each))


IMAGES = (f"data.root={photo_folder(12)}", "data.size=6", "data.workers=0")
IMAGES = ("data=image_folder", *IMAGES, "model=cnn", "model.width=4", "growth=none")


# Where the options of a group matter; then what an option needs beside it.
OPTIONS: dict[str, tuple[str, ...]] = {
    "model": ("growth=none",),
    "data": ("growth=none",),
    "augment": ("growth=none",),
    "mix": ("growth=none",),
    "loss": ("growth=none",),
    "curriculum": ("growth=none", "model=cnn"),
    "curriculum/score": SCORED,
    "curriculum/pacing": EASY_FIRST,
    "growth": (),
    "growth/choice": ("growth=budget", "growth.max_params=100000", *BUDGET[2:]),
    "widen": PLAIN,
    "deepen": DEEPENING,
    "warmup": GROWING,
    "scheduler": GROWING,
    "at_growth": (*GROWING, "scheduler=cosine"),
    "optimizer": GROWING,
    "optimizer_state": (*PLAIN, "widen=duplicate"),
    "head": (*GROWING, HEADED),
    "insert": JOINING,
    "settle": (*EARLY, *LOSS, "train.recovery=1"),
    "transfer": PLAIN,
}
NEEDS = {
    "growth=plateau": PLATEAU[1:],
    "growth=proactive": ("growth.trigger.window=3", "train.evaluate_every=1steps"),
    "growth=combined": COMBINED,
    "curriculum=difficulty": ("curriculum.score.steps=3",),
    "curriculum=sequence_length": TEXT,
    "curriculum=batch_size": ("curriculum.maximum=16",),
    "curriculum=combination": (
        "curriculum.curricula.difficulty.score.steps=3",
        "curriculum.curricula.batch_size.maximum=16",
    ),
    "curriculum/score=loss": ("curriculum.score.steps=3",),
    "curriculum/score=length": ("curriculum.score.padding=32",),
    "curriculum/score=column": (f"curriculum.score.file={score_file(0)}",),
    "scheduler=reduce_on_plateau": FALLING,
    "at_growth=rewarm": ("at_growth.length=20%",),
}
NEEDS |= {"augment=standard": ("augment.standard.padding=1",)}
NEEDS |= {"augment=cutout": ("augment.cutout.size=2",)}
NEEDS |= {"model=torchvision": ("model.name=mobilenet_v3_small",)}
NEEDS |= {"model=gpt": TEXT[1:]}
NEEDS |= {"data=text": TEXT}
NEEDS |= {"data=image_folder": IMAGES[1:]}
NEEDS |= {f"warmup={option}": warming(option, "3steps")[1:] for option in options("warmup")}
SAME_BITS = {
    "hardware": "where a run computes; auto is cpu here, and gpu refuses (test_machine)",
    "experiment": "recipes: several options in one word (test_experiments)",
    "study": "arms and seeds of many runs (test_study)",
    "monitor": "a warning changes nothing (test_monitors)",
    "debug": "looks, or makes another run on purpose (test_debug)",
    "metric": "evaluations count, and train nothing (test_metrics)",
    "logger": "being told changes nothing (test_loggers)",
}

Another = str | tuple[str, ...]  # a value; or a value and what it needs beside it
RAMP: dict[str, Another] = {"length": "3steps"}
SPACES: dict[str, Another] = {"spaces": "stem|head", "factor": "1.5", "size": "7"}
JOINED: dict[str, Another] = {
    "modules": "stages.0.*",
    "place": "beside",
    "silent": ("false", "warmup=cosine_ramp", "warmup.length=2steps"),
}
TAUGHT: dict[str, Another] = {"alpha": "0.9", "temperature": "1.0", "precision": "bf16"}
STACKS: dict[str, Another] = {"stacks": ("stages.1.*", *CNN), "add": "2"}

KEPT: dict[str, Another] = {
    "keep_if": "'gain > 10'",
    "embargo": ("50%", "growth.keep_if='gain > 10'"),
}
CONDITIONAL: dict[str, Another] = {
    **KEPT,
    "start.width": "0.25",
    "start.depth": "2",
    "consolidation": "2steps",
    "stages.deeper.when": "'step >= 1'",
    "stages.deeper.consolidation": "3steps",
    "stages.wider.when": "'step >= 5'",
    "stages.wider.consolidation": "3steps",
}

# Under which other settings those of a YAML matter; its own option is always chosen.
WITHIN: dict[str, tuple[str, ...]] = {
    "growth/plateau": PLATEAU[1:],
    "growth/budget": BUDGET[1:],
    "growth/sequential": CONDITIONS,
    "growth/overlapping": ("growth.most=1", *CONDITIONS),
    "growth/proactive": PROACTIVE,
    "growth/choice/trial": (*TRIED, *BUDGET[1:]),
    "growth/combined": COMBINED,
    "curriculum/difficulty": EASY_FIRST,
    "curriculum/image_size": ("growth=none", "model=cnn"),
    "curriculum/sequence_length": ("growth=none", *TEXT),
    "curriculum/batch_size": ("growth=none", "curriculum.maximum=32"),
    "curriculum/combination": ("growth=none", "model=cnn", *NEEDS["curriculum=combination"]),
    **{f"curriculum/pacing/{option}": EASY_FIRST for option in options("curriculum/pacing")},
    **{f"curriculum/score/{option}": SCORED for option in options("curriculum/score")},
    "curriculum/score/loss": (*SCORED, "curriculum.score.steps=3"),
    "curriculum/score/length": (*SCORED, "curriculum.score.padding=32"),
    **{f"widen/{option}": PLAIN for option in options("widen")},
    **{f"deepen/{option}": PLAIN for option in options("deepen")},
    "deepen/interleave_half": (*PLAIN, "model=resnet", "model.width=4"),
    **{f"{group}/{option}": GROWING for group in ("warmup", "at_growth", "optimizer")
       for option in options(group)},
    **{f"transfer/{option}": GROWING for option in options("transfer")},
    **{f"head/{option}": (*GROWING, HEADED) for option in options("head")},
    **{f"insert/{option}": JOINING for option in options("insert")},
    "augment/standard": ("growth=none", *NEEDS["augment=standard"]),
    "augment/cutout": ("growth=none", *NEEDS["augment=cutout"]),
    "scheduler/reduce_on_plateau": FALLING,
    "model/gpt": TEXT[1:],
    "model/torchvision": ("model.name=mobilenet_v3_small",),
    "data/text": TEXT,
    "data/image_folder": IMAGES,
    **{f"settle/{option}": OPTIONS["settle"] for option in options("settle")},
    "monitor/instability": UNSTABLE,
    "monitor/contribution": (*EARLY, "monitor.contribution.remedy=rollback", *LOSS),
    "monitor/shock": (*EARLY, *LOSS, "train.recovery=1", "train.evaluate_every=1steps",
                      "monitor.shock.remedy=rollback", "monitor.shock.within=2steps"),
    "monitor/slow": (*EARLY, "growth.stages.deeper.at=9steps", "growth.stages.wider.at=11steps",
                     "optimizer.lr=1e-9", "model.norm=none", "train.evaluate_every=1steps",
                     "monitor.slow.patience=2", "monitor.slow.remedy=grow"),
    "config": ("growth=none",),
}  # fmt: skip

SETTINGS: dict[str, dict[str, Another]] = {
    "config": {
        "seed": "1",
        "train.duration": "11steps",
        "train.batch_size": "7",
        "train.accumulate": "2",
        "train.evaluate_every": ("2steps", *ON_PLATEAU[:2]),
        "train.metric": ("val/loss", *ON_PLATEAU),
        "train.mode": ("max", "train.metric=val/loss", *ON_PLATEAU),
        "train.clip": "0.1",
        "train.recovery": (
            "0.1",
            *OPTIONS["settle"][:-1],
            "settle=until_recovered",
            "train.recovery=1",
            "train.evaluate_every=1steps",
        ),
        "train.heads": ("all", *GROWING, "head=second", HEADED),
        "train.freeze": "[head.*]",
        "train.thaw": ("50%", "train.freeze=[head.*]"),
        "stop.target": "0.01",
        "stop.max_flops": "5e4",
        "stop.max_seconds": "1e-9",
        "stop.patience": ("1", *PLATEAU, *STILL),
        "stop.early_stopping": ("4steps", *STILL, "train.evaluate_every=2steps"),
        "stop.min_delta": (
            "10",
            "stop.early_stopping=4steps",
            "optimizer.lr=0.03",
            "train.evaluate_every=2steps",
            *LOSS,
        ),
    },
    "model/mlp": {"width": "6", "depth": "3", "norm": "layer", "activation": "tanh"},
    "model/cnn": {
        "width": "6",
        "depth": "1",
        "stages": "1",
        "dropout": "0.3",
        "activation": "gelu",
    },
    "model/resnet": {"width": "6", "depth": "1", "stages": "2", "expansion": "0.5"},
    "model/gpt": {
        "width": "16",
        "depth": "3",
        "heads": "2",
        "kv_heads": "2",
        "head_size": "4",
        "hidden": "9",
        "norm": "layer",
        "positions": "learned",
        "tied": "true",
        "mlp": "swiglu",
        "dropout": "0.3",
        "qk_norm": "true",
    },
    "model/vit": {
        "patch": "4",
        "width": "16",
        "depth": "3",
        "heads": "2",
        "hidden": "9",
        "dropout": "0.3",
    },
    "model/torchvision": {"name": "shufflenet_v2_x0_5", "arguments": "{dropout: 0.9}"},
    "data/text": {
        "path": str(CONF / "config.yaml"),
        "length": "6",
        "num_classes": "257",
        "bytes": "1500",
        "validation": "0.3",
        "test": "0.3",
        "tokens": ("characters", f"data.cache={_SCORES.name}"),
        "vocabulary": ("260", "data.tokens=bpe", f"data.cache={_SCORES.name}"),
        "tokenizer": (tokenizer_file(), "data.tokens=bpe", f"data.cache={_SCORES.name}"),
    },
    "data/image_folder": {
        "root": photo_folder(14),
        "size": "5",
        "channels": "1",
        "crop": "centre",
        "scale": "[0.9,1]",
        "flip": "0.0",
        "centre": ("0.5", "data.crop=centre"),
        "mean": "[0.1,0.2,0.3]",
        "std": "[0.1,0.2,0.3]",
        "validation": "0.3",
        "test": "0.3",
        "split_seed": "1",
    },
    "data/digits": {"num_classes": "11", "validation": "0.3", "split_seed": "1"},
    "data/synthetic": {
        "shape": "[1,4,5]",
        "num_classes": "3",
        "samples": "70",
        "validation": "0.3",
        "split_seed": "1",
    },
    "data/cifar10": {
        "num_classes": "11",
        "mean": "[0.1,0.2,0.3]",
        "std": "[0.1,0.2,0.3]",
        "validation": "0.3",
        "split_seed": "1",
    },
    "augment/standard": {"padding": "2", "flip": "0.0"},
    "augment/cutout": {"size": "3"},
    "mix/mixup": {"alpha": "1.0", "share": "0.5"},
    "mix/cutmix": {"alpha": "0.3", "share": "0.5"},
    "loss/cross_entropy": {"label_smoothing": "0.1", "class_weights": "balanced"},
    "loss/function": {"function.gamma": "1"},
    "growth/none": {"start": "{width: 0.5}"},
    "growth/sequential": CONDITIONAL,
    "growth/overlapping": {**CONDITIONAL, "most": "2"},
    "growth/proactive": {
        "keep_if": "'gain > 10'",
        "embargo": ("50%", "growth.keep_if='gain > 10'", "growth.trigger.exponent=0.5"),
        "start.width": "0.25",
        "start.depth": "2",
        "consolidation": "6steps",
        "max_stages": "1",
        "trigger.metric": "train/loss",
        "trigger.window": "4",
        "trigger.horizon": "90%",
        "trigger.ratio": "1.2",
        "trigger.exponent": "0.0001",
    },
    "growth/choice/trial": {"steps": "9", "include_none": "true"},
    "growth/schedule": {
        "keep_if": ("'gain > 9'", "growth.consolidation=1steps"),
        "embargo": (
            "1%",
            "growth.keep_if='gain > 9'",
            "growth.consolidation=1steps",
            "growth.embargo=90%",
        ),
        "start.width": "0.25",
        "start.depth": "2",
        "consolidation": ("4steps", "growth.stages.wider.at=1e3flops"),
        "stages.deeper.at": "2steps",
        "stages.wider.at": "9steps",
    },
    "growth/plateau": {
        "keep_if": ("'gain > 9'", "growth.consolidation=1steps"),
        "embargo": (
            "1%",
            "growth.keep_if='gain > 9'",
            "growth.consolidation=1steps",
            "growth.embargo=90%",
        ),
        "start.width": "0.25",
        "start.depth": "2",
        "consolidation": "6steps",
        "max_stages": "1",
        "trigger.patience": "2",
        "trigger.min_delta": "0.0",
        "trigger.threshold": ("10", "growth.trigger.patience=2", "growth.trigger.min_delta=0"),
    },
    "growth/budget": {
        "keep_if": ("'gain > 9'", "growth.consolidation=1steps"),
        "embargo": (
            "1%",
            "growth.keep_if='gain > 9'",
            "growth.consolidation=1steps",
            "growth.embargo=90%",
        ),
        "start.width": "0.25",
        "start.depth": "2",
        "consolidation": "3steps",
        "max_params": "300",
        "max_flops": "2e5",
        "max_seconds": "1e-9",
        "max_stages": "1",
        "trigger.interval": "3steps",
    },
    "growth/combined": {
        "start.width": "0.25",
        "start.depth": "2",
        "consolidation": "4steps",
        "keep_if": "'gain > 9'",
        "embargo": ("90%", "growth.keep_if='gain > 9'"),
        "max_stages": "1",
        "trigger.patience": "2",
        "trigger.min_delta": ("0.0", *LOSS, "optimizer.lr=0.03", "scheduler=constant"),
        "trigger.threshold": ("10", "growth.trigger.patience=2", "growth.trigger.min_delta=0"),
    },
    "curriculum/difficulty": {"start": "0.5", "length": "80%"},
    "curriculum/image_size": {"start": "3", "multiple": "1", "length": "80%"},
    "curriculum/sequence_length": {"start": "4", "multiple": "2", "length": "80%"},
    "curriculum/batch_size": {
        "every": "30%",
        "milestones": ("[6steps]", "curriculum.every=null", "curriculum.milestones=[3steps]"),
        "maximum": "16",
        "lr": "sqrt",
    },
    "curriculum/combination": {
        "curricula.difficulty.start": "0.5",
        "curricula.difficulty.length": "80%",
        "curricula.difficulty.score.steps": "9",
        "curricula.difficulty.pacing.power": "1",
        "curricula.image_size.start": "3",
        "curricula.image_size.multiple": "1",
        "curricula.image_size.length": "80%",
        "curricula.batch_size.every": "30%",
        "curricula.batch_size.milestones": (
            "[6steps]",
            "curriculum.curricula.batch_size.every=null",
            "curriculum.curricula.batch_size.milestones=[3steps]",
        ),
        "curricula.batch_size.maximum": "32",
        "curricula.batch_size.lr": "linear",
    },
    "curriculum/pacing/root": {"exponent": "2"},
    "curriculum/pacing/step": {"steps": "1"},
    "curriculum/pacing/competence": {"power": "1"},
    "curriculum/score/loss": {"steps": "9"},
    "curriculum/score/length": {"padding": "101"},
    "curriculum/score/compression": {"level": ("1", "data.length=128", "data.bytes=9000")},
    "curriculum/score/function": {"function.sign": "1"},
    "curriculum/score/column": {
        "file": (score_file(1), f"curriculum.score.file={score_file(0)}"),
    },
    "widen/random": SPACES,
    "widen/zero": SPACES,
    "widen/duplicate": {**SPACES, "unevenness": "0.1"},
    "widen/paired": {**SPACES, "scale": "0.5"},
    "widen/sparkling": {**SPACES, "rows": "random", "columns": "random"},
    "widen/gradmax": {**SPACES, "scale": "0.5", "iterations": "2"},
    "widen/firefly": {**SPACES, "candidates": "2", "steps": "2", "lr": "0.5", "epsilon": "0.01"},
    "widen/ligo": {**SPACES, "steps": "3", "lr": "0.01", "noise": "0.1"},
    "head/stage": {"fresh": "true"},
    "transfer/distill": {
        **TAUGHT,
        "length": "1steps",
    },
    "transfer/progressive": {
        **TAUGHT,
        "weights": "recent",
        "most": "1",
        "length": "3steps",
    },
    "head/outputs": {"add": "2"},
    "head/second": {"name": "third", "fresh": "true"},
    "insert/branch": {**JOINED, "factor": "2.0", "size": "3"},
    "insert/adapter": {**JOINED, "rank": "2"},
    "insert/attention": {**JOINED, "heads": "2", "causal": "true"},
    "deepen/identity": {**STACKS, "place": ("first", *CNN, "growth.start.depth=2")},
    "deepen/random": {**STACKS, "place": "first"},
    "deepen/stack": STACKS,
    "deepen/interleave": STACKS,
    "deepen/interleave_half": {"stacks": "stages.1.*", "add": "2"},
    "deepen/middle": STACKS,
    "deepen/last": STACKS,
    "warmup/linear_ramp": {**RAMP, "isolated": "true"},
    "warmup/cosine_ramp": {**RAMP, "isolated": "true"},
    "warmup/exponential_ramp": {**RAMP, "isolated": "true"},
    "warmup/lr": {**RAMP, "zero_output": "false"},
    "warmup/frozen_host": {"isolation": "2steps", "zero_output": "false"},
    "settle/lower_rate": {"rate": "0.6", "length": "2steps"},
    "settle/until_recovered": {"rate": "0.6", "within": ("50%", "settle.within=1steps")},
    "monitor/instability": {
        "window": ("4", *leaps("variance")),
        "every": ("3", *leaps("gradient")),
        **{name: ("1e6", *leaps(name)) for name in ("loss", "variance", "gradient")},
        "hold": ("3steps", *leaps("gradient"), "monitor.instability.remedy=adapt", *RAMPED),
        "remedy": ("warn", *leaps("gradient")),
    },
    "monitor/contribution": {
        "remedy": ("warn", "monitor.contribution.threshold=1e6"),
    },
    "monitor/shock": {
        "within": "1steps",
        "hold": ("3steps", "monitor.shock.remedy=adapt", "monitor.shock.within=1steps", *RAMPED),
        "remedy": "warn",
    },
    "monitor/slow": {"patience": "3", "left": "0.9", "remedy": "warn"},
    "at_growth/rewarm": {"length": "20%", "from_factor": ("0.5", "at_growth.length=20%")},
    "scheduler/step": {"size": "20%", "gamma": "0.5"},
    "scheduler/cyclic": {
        "cycle": "30%",
        "rise": "0.3",
        "max_factor": "2.0",
        "cycle_gamma": "0.5",
        "step_gamma": "0.9",
    },
    "scheduler/constant": {"factor": "0.5", "length": ("50%", "scheduler.factor=0.5")},
    "scheduler/function": {"function.knee": "0.2"},
    "scheduler/multistep": {"milestones": "[30%,60%]", "gamma": "0.5"},
    "scheduler/reduce_on_plateau": {
        "factor": "0.5",
        "patience": "1",
        "threshold": ("0.5", *LOSS),
        "cooldown": "2",
        "min_factor": "0.3",
    },
    "scheduler/wsd": {"warmup": "20%", "decay": "40%", "final": "0.5"},
    "scheduler/polynomial": {"length": "50%", "power": "2.0"},
    "scheduler/warm_restarts": {"first": "30%", "factor": "2", "final": "0.1"},
    "scheduler/one_cycle": {"pct_start": "0.5", "div_factor": "10", "final_div_factor": "10"},
    "scheduler/cosine": {"length": "50%", "final": "0.1"},
    "scheduler/exponential": {"gamma": "0.5", "every": "1steps"},
    "debug/overfit_batches": {"batches": ("2", *LENIENT), "steps": ("9", *LENIENT)},
    "optimizer/sgd": {
        "lr": "0.05",
        "momentum": "0.8",
        "nesterov": "false",
        "weight_decay": "0.1",
        "groups": "{one: {match: stem.*, lr: 0.1, weight_decay: 0.5}}",
    },
    "optimizer/adamw": {
        "lr": "1e-3",
        "beta1": "0.8",
        "beta2": "0.9",
        "eps": "1e-3",
        "weight_decay": "0.1",
        "groups": "{one: {match: stem.*, lr: 0.1, weight_decay: 0.5}}",
    },
    "optimizer/muon": {
        "lr": "0.01",
        "momentum": "0.8",
        "weight_decay": "0.1",
        "adamw_lr": "1e-3",
        "adamw_beta1": "0.8",
        "adamw_beta2": "0.9",
        "groups": "{one: {match: stem.*, lr: 0.1, weight_decay: 0.5}}",
    },
    "optimizer/torch": {
        "name": "RAdam",
        "lr": "1e-3",
        "weight_decay": "0.1",
        "arguments": "{betas: [0.8, 0.9]}",
        "groups": "{one: {match: stem.*, lr: 0.1, weight_decay: 0.5}}",
    },
}

# What must not change the weights, and why.
SILENT = {
    "monitor/gradients": {"limit": "what is told (test_measured)"},
    "monitor/mfu": {"peak_tflops": "what is told (test_measured)"},
    "monitor/contribution": {
        "threshold": "which growths are found (test_monitors)",
        "every": "a measurement changes no weight (test_monitors)",
        "parts": "a measurement changes no weight (test_monitors)",
    },
    "config": {
        "report.page": "a page tells of a run (test_page_run)",
        "train.columns": "of the table of a multirun (test_metrics)",
        "train.answers": "says which head's figures are val/… (test_heads)",
        "train.ema": "an average beside the weights (test_average)",
        "task": "only train trains (test_plan, test_tasks)",
        "input": "of task=predict (test_predict)",
        "predict.top_k": "of task=predict (test_predict)",
        "predict.count": "of task=predict (test_predict)",
        "predict.temperature": "of task=predict (test_predict)",
        "predict.average": "of task=predict (test_predict)",
        "predict.batch_size": "of task=predict (test_predict)",
        "export.format": "of task=export (test_tasks)",
        "export.average": "of task=export (test_tasks)",
        "runs": "of task=compare (test_task_compare)",
        "compare.margin": "of task=compare (test_task_compare)",
        "compare.bootstrap": "of task=compare (test_task_compare)",
        "compare.seed": "of task=compare (test_task_compare)",
        "proof.tolerance": "refuses a growth (test_proof)",
        "proof.required": "refuses a growth (test_proof)",
        "resume": "goes on with a run (test_resume)",
        "plugins": "says what may be named",
        "stop.max_params": "refuses a plan (test_limits)",
        "checkpoint.every": "storing changes nothing (test_resume)",
        "checkpoint.keep": "storing changes nothing",
        "checkpoint.best": "storing changes nothing (test_best)",
        **{
            f"nonfinite.{name}": "what follows a step that is not finite (test_nonfinite)"
            for name in ("policy", "in_a_row", "most", "back", "rollbacks")
        },
        "plan.rehearse": "a plan trains nothing (test_plan)",
        "plan.steps": "how often a plan measures (test_plan)",
    },
    "debug/overfit_batches": {"loss": "a verdict (test_debug)"},
    "debug/profile": dict.fromkeys(
        ("wait", "warmup", "active", "around_growth", "rows"), "what is recorded (test_debug)"
    ),
    "debug/nans": {"backward": "where it looks (test_debug)"},
    "debug/determinism": {"resume": "when the second run resumes (test_debug)"},
    "transfer/distill": {"device": "where it computes (test_transfer, on a GPU)"},
    "transfer/progressive": {"device": "where they compute (test_transfer, on a GPU)"},
    "data/cifar10": dict.fromkeys(("name", "root", "download", "shape"), "where the data are"),
    "curriculum/score/column": {"name": "there is one column (test_scores)"},
    "data/image_folder": {
        "shape": "follows size and channels",
        "cache": "changes no bit (test_image_folder)",
        "workers": "changes no bit (test_image_folder)",
        "prefetch": "changes no bit (test_image_folder)",
        "timeout": "ends a run (test_image_folder)",
    },
    "data/digits": {"shape": "what the samples are"},
    "data/text": {
        "shape": "follows length",
        "cache": "where tokens are kept (test_text_tokens)",
        "validation_path": "what is evaluated (test_text_tokens)",
    },
    "logger/wandb": dict.fromkeys(
        ("mode", "project", "entity", "group", "tags"), "where it is told (test_loggers)"
    ),
    "logger/mlflow": dict.fromkeys(("uri", "experiment"), "where it is told (test_loggers)"),
    "model/torchvision": {"weights": "read or downloaded (test_models)"},
}
FOLLOWS_CIFAR10 = ("data/cifar100", "data/mnist", "data/fashion_mnist")


def read_noise(vision: Vision, train: bool) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """In place of torchvision: the same few images, whatever the data set."""
    generator = torch.Generator().manual_seed(int(train))
    x = torch.randint(256, (40, *vision.shape), generator=generator, dtype=torch.uint8)
    return x, torch.arange(40) % vision.num_classes, ()


@cache
def weights(*overrides: str) -> frozenset[tuple[str, str]]:
    """Names and hashes of all tensors of the network at the end."""
    with TemporaryDirectory() as folder, mock.patch.object(Vision, "_read", read_noise):
        made = parts("train.duration=12steps", *overrides)
        digest = train(made, Path(folder), store=False).spy.digest
    return frozenset(item for item in digest.items() if item[0].startswith("model/"))


def leaves(node: Any, name: str = "") -> dict[str, Any]:
    """Settings of a YAML by dotted name; what follows another setting is none."""
    if isinstance(node, dict) and node:
        inner = {k: v for k, v in node.items() if not k.startswith("_") and k != "defaults"}
        found = [leaves(value, f"{name}.{key}" if name else key) for key, value in inner.items()]
        return {key: value for each in found for key, value in each.items()}
    return {} if str(node).startswith("${") else {name: node}


def yamls() -> list[str]:
    return sorted(
        path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml")
    )


@pytest.mark.parametrize("group", some(list(OPTIONS), 2))
def test_every_option_of_a_group_gives_another_run(group: str) -> None:
    runs = {
        option: weights(*OPTIONS[group], f"{group}={option}", *NEEDS.get(f"{group}={option}", ()))
        for option in options(group)
    }
    twins = [
        {one, other} for one in runs for other in runs if one < other and runs[one] == runs[other]
    ]
    assert not twins


def settings() -> list[Any]:
    """Every (file, setting); those of groups that do not decide on growth are slow, and every
    second of the others."""
    slow = ("model/", "data/", "scheduler/", "optimizer/", "curriculum/", "insert/", "monitor/")
    return [
        pytest.param(file, setting, marks=[pytest.mark.slow] if file.startswith(slow) else marks)
        for file in SETTINGS
        for index, setting in enumerate(SETTINGS[file])
        for marks in [[pytest.mark.slow] if index % 2 else []]
    ]


@pytest.mark.parametrize(("file", "setting"), settings())
def test_every_setting_gives_another_run(file: str, setting: str) -> None:
    group, _, option = file.rpartition("/")
    another = SETTINGS[file][setting]
    value, *beside = (another,) if isinstance(another, str) else another
    chosen = (f"{group}={option}",) if group else ()
    base = (*WITHIN.get(file, ()), *chosen, *beside)
    place = f"{group}.{option}" if group in SEVERAL else group.replace("/", ".")
    name = f"{place}.{setting}" if group else setting
    assert weights(*base) != weights(*base, f"{name}={value}")


@pytest.mark.parametrize(
    ("overrides", "grown"),
    [
        (("widen.spaces=blocks.*",), {"blocks.0.linear", "blocks.1.linear"}),
        (("widen.spaces=stem | blocks.1.*",), {"stem", "blocks.1.linear"}),
        (("widen.spaces=*",), {"stem", "blocks.0.linear", "blocks.1.linear"}),
        (("deepen.stacks=stages.1.*", *CNN), {"stages.1.blocks"}),
        (("deepen.stacks=*", *CNN), {"stages.0.blocks", "stages.1.blocks"}),
    ],
)
def test_patterns_choose_what_they_name(
    overrides: tuple[str, ...], grown: set[str], tmp_path: Path
) -> None:
    run = train(parts(*GROWING, *overrides), tmp_path, store=False).run
    index = 1 if overrides[0].startswith("widen") else 0
    changes = run.events[index].edit.changes
    assert {getattr(c, "space", None) or getattr(c, "stack", None) for c in changes} == grown


@pytest.mark.parametrize(
    ("overrides", "known"),
    [(("widen.spaces=trunk",), "stem, blocks.0.linear"), (("deepen.stacks=trunk",), "blocks")],
)
def test_a_pattern_that_names_nothing_is_refused_with_what_there_is(
    overrides: tuple[str, ...], known: str, tmp_path: Path
) -> None:
    with pytest.raises(GrowthError, match=known):
        train(parts(*GROWING, *overrides), tmp_path, store=False)


def test_every_group_and_setting_is_tested() -> None:
    assert set(groups()) == {*OPTIONS, *SAME_BITS}
    for file in yamls():
        known = {*SETTINGS.get(file, ()), *SILENT.get(file, ())}
        wanted = set(leaves(yaml.safe_load((CONF / f"{file}.yaml").read_text())))
        wanted = {name for name in wanted if not name.startswith("hydra")}
        if file not in FOLLOWS_CIFAR10 and not file.startswith(
            ("hardware/", "experiment/", "study/")
        ):
            assert known == wanted, file
