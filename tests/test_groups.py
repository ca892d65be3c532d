"""`optimizer.groups`: parameters with a learning rate and a weight decay of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from run_kit import Spy, differences, parts, resume, train

from progtrain.errors import ConfigError, SettingError
from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.muon import Muon
from progtrain.optimizers.sgd import SGD
from progtrain.optimizers.torch_optimizer import TorchOptimizer
from progtrain.run import Run

OWN = "++optimizer.groups={bottom: {match: stem.*, lr: 0.1, weight_decay: 0.5}}"
RECIPES: list[Any] = [AdamW, SGD, Muon, TorchOptimizer]


def settings(run: Run) -> dict[str, tuple[float, float]]:
    """Base rate and decay of each parameter by name."""
    names = {id(p): name for name, p in run.optimizer.parameters.items()}
    return {
        names[id(p)]: (group["base_lr"], group["weight_decay"])
        for group in run.optimizer.groups()
        for p in group["params"]
    }


@pytest.mark.parametrize("kind", RECIPES)
def test_what_matches_has_its_own_rate_and_decay_and_nothing_else_has(kind: Any) -> None:
    weights = {
        name: torch.nn.Parameter(torch.ones(shape))
        for name, shape in {
            "stem.weight": (2, 3),
            "stem.bias": (2,),
            "hidden.weight": (2, 2),
            "more.weight": (2, 2),
            "head.weight": (2, 2),
            "head.bias": (2,),
        }.items()
    }
    groups = {"head": {"match": "head.* | more.*", "lr": 0.5}, "all": {"match": "*d.bias", "lr": 3}}
    groups |= {"none": {"match": "stem.bias", "lr": 0.0, "weight_decay": 0.25}}
    plain = kind().build(weights, frozenset({"hidden.weight"}))
    grouped = kind(groups=groups).build(weights, frozenset({"hidden.weight"}))

    def of(made: Any) -> dict[str, tuple[float, float]]:
        by = {id(p): (g["base_lr"], g["weight_decay"]) for g in made.groups() for p in g["params"]}
        return {name: by[id(p)] for name, p in weights.items()}

    for name, (rate, decay) in of(plain).items():
        factor = 0.5 if name.startswith(("head", "more")) else 1.0  # head.bias: the first counts
        wanted = (0.0, 0.25) if name == "stem.bias" else (rate * factor, decay)
        assert of(grouped)[name] == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon", "torch"])
def test_it_holds_right_through_growths_and_a_resume(kind: str, tmp_path: Path) -> None:
    made = parts(
        "growth=schedule", "warmup=lr", "warmup.length=3steps", f"optimizer={kind}",
        "++optimizer.groups={blocks: {match: blocks.*, lr: 0.1, weight_decay: 0.5}}",
        "checkpoint.every=5steps", "checkpoint.keep=9", "growth.consolidation=1steps",
    )  # fmt: skip
    seen: list[dict[str, tuple[float, float]]] = []

    def act(call: str, run: Run) -> None:
        if call in ("started", "stepped"):
            seen.append(settings(run))

    whole = train(made, tmp_path, Spy(act))
    assert len(seen[-1]) > len(seen[0]) and len(whole.run.grown) == 2
    for each in seen:
        rates = {name: rate for name, (rate, _) in each.items()}
        for name, (rate, decay) in each.items():
            if name.startswith("blocks."):
                assert decay == 0.5 and rate < min(
                    r for n, r in rates.items() if not n.startswith("blocks.")
                )
            else:
                assert decay != 0.5
    again = resume(made, tmp_path)
    assert settings(again.run) == settings(whole.run)


def test_a_rate_of_a_tenth_moves_a_weight_a_tenth_as_far(tmp_path: Path) -> None:
    def moved(*overrides: str) -> float:
        at: list[torch.Tensor] = []

        def act(call: str, run: Run) -> None:
            if call == "started" or (call == "stepped" and run.clock.step == 1):
                at.append(run.model.state_dict()["stem.weight"].clone())

        made = parts("growth=none", "optimizer.weight_decay=0", *overrides)
        train(made, tmp_path / str(len(overrides)), Spy(act), store=False)
        return float((at[1] - at[0]).abs().mean())

    own = "++optimizer.groups={bottom: {match: stem.*, lr: 0.1}}"
    assert moved(own) == pytest.approx(0.1 * moved(), rel=1e-4)


def test_a_run_with_groups_resumes_in_the_same_bits(tmp_path: Path) -> None:
    made = parts("growth=schedule", OWN, "checkpoint.every=5steps")
    whole = train(made, tmp_path / "whole")
    train(parts("growth=schedule", OWN, "checkpoint.every=5steps"), tmp_path / "run")
    assert not differences(whole, resume(made, tmp_path / "run"))


def test_a_pattern_that_names_nothing_is_refused(tmp_path: Path) -> None:
    bad = "++optimizer.groups={typo: {match: haed.*, lr: 0.1}}"
    with pytest.raises(ConfigError, match=r"optimizer\.groups\.typo\.match='haed\.\*'.*stem"):
        train(parts("growth=none", bad), tmp_path / "bad", store=False)
    later = "++optimizer.groups={new: {match: blocks.1.*, lr: 0.1}}"  # it grows
    train(parts("growth=schedule", later), tmp_path / "later", store=False)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"match": "a", "rate": 1}, "groups.one must be match"),
        ({"lr": 0.1}, "groups.one.match"),
        ({"match": "a", "lr": -1}, "groups.one.lr"),
        ({"match": "a", "weight_decay": 1.5}, "groups.one.weight_decay"),
        ("a", "groups.one must be match"),
    ],
)
def test_settings_say_what_they_take(kind: Any, given: Any, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        kind(groups={"one": given})
