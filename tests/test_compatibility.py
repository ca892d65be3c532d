"""docs/compatibility.md is what the code does, and every pair that it allows trains and resumes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from run_kit import Finished, Spy, branch, differences, options, parts, resume, train
from torch import Tensor, nn

from progtrain.errors import ProgtrainError
from progtrain.growth.controls import new_modules
from progtrain.run import Event, Run

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import compatibility  # noqa: E402

MODELS = {
    "widen": ("model=mlp", "model.norm=batch", "growth.start.width=0.5"),
    "deepen": (
        "model=resnet",
        "model.width=4",
        "model.stages=1",
        "model.depth=2",
        "growth.start.depth=2",
    ),
    "insert": ("model=cnn", "model.width=8"),
    "head": ("model=mlp",),
}
# one growth, at step 40; its warmup is over at 90, and it has 200 steps
RUN = (
    "growth=plateau",
    "growth.max_stages=1",
    "growth.trigger.patience=1",
    "growth.trigger.min_delta=10",
    "growth.consolidation=20steps",
    "train.duration=240steps",
    "train.evaluate_every=20steps",
    "scheduler=constant",
)
MIDDLE = 85
STORED = ("checkpoint.every=85steps", "checkpoint.keep=5")
SEARCHES = ("steps", "candidates", "iterations")  # settings of operators that look for values


def test_the_page_is_what_the_code_does() -> None:
    told = "Write it again: python benchmarks/compatibility.py --write"
    assert compatibility.page() == compatibility.PAGE.read_text(encoding="utf-8"), told


def pairs() -> Iterator[Any]:
    """Every operator with every warmup and transfer; `make test-all` takes a third of them,
    `make test` a few, `make test-pairs` all."""
    for group in compatibility.GROUPS:
        for operator in compatibility.names(group):
            for warmup in compatibility.names("warmup"):
                for transfer in options("transfer"):
                    place = hash_of(operator, warmup, transfer)
                    marks = [] if place % 80 == 0 else [pytest.mark.slow]
                    marks += [] if place % 80 == 0 or place % 3 == 0 else [pytest.mark.exhaustive]
                    yield pytest.param(group, operator, warmup, transfer, marks=marks)


def hash_of(*words: str) -> int:
    return sum(i * ord(c) for i, c in enumerate("".join(words), 1))


@pytest.mark.parametrize(("group", "operator", "warmup", "transfer"), list(pairs()))
def test_a_pair_trains_200_steps_and_resumes_in_its_middle_or_is_refused(
    group: str, operator: str, warmup: str, transfer: str, tmp_path: Path
) -> None:
    """Laws 2, 3 and 4: nothing is missing in the optimizer, all that is new has moved and copies
    differ, and a resume ends in the same bits."""
    overrides = settings(group, operator, warmup, transfer)
    if verdict(group, operator, warmup, transfer) == "no":
        with pytest.raises(ProgtrainError, match=r"warmup|transfer"):
            train(parts(*overrides), tmp_path / "refused", store=False)
        return
    grown: dict[str, Tensor] = {}
    spy = Spy(
        lambda call, run: grown.update(new_values(run) | likeness(run)) if call == "grew" else None
    )
    whole = train(parts(*overrides, *STORED), tmp_path / "whole", spy)
    assert len(whole.run.events) == 1 and whole.run.clock.step == 240
    again = branch(whole.directory, MIDDLE, tmp_path / "again")
    assert not differences(whole, resume(parts(*overrides, *STORED), again))
    check_laws(whole, grown)


def settings(group: str, operator: str, warmup: str, transfer: str) -> tuple[str, ...]:
    plain = compatibility.plain
    chosen = (f"{group}={plain(operator)}", f"warmup={plain(warmup)}", f"transfer={transfer}")
    length = {"frozen_host": "isolation", "none": "", "zero_init": ""}.get(plain(warmup), "length")
    more = [f"warmup.{length}=50steps"] if length else []
    for name, within in ((operator, group), (warmup, "warmup")):
        variant = dict(compatibility.VARIANTS.get(within, [])).get(name, {})
        more += [f"{within}.{key}={str(value).lower()}" for key, value in variant.items()]
    more += [f"{group}.{key}=2" for key in searched(group, operator)]
    return (*RUN, *MODELS[group], *chosen, *more, f"growth.stages.deeper=${{{group}}}")


def searched(group: str, operator: str) -> list[str]:
    made = compatibility.option(group, operator)
    return [key for key in SEARCHES if hasattr(made, key)]


@cache
def verdict(group: str, operator: str, warmup: str, transfer: str) -> str:
    return compatibility.attempt(group, operator, warmup, transfer).word


def new_values(run: Run) -> dict[str, Tensor]:
    """The new entries of every parameter, under its name."""
    event = run.events[0]
    found: dict[str, Tensor] = {}
    for name, parameter in run.model.named_parameters():
        mask = new_entries(name, parameter.detach(), event)
        if bool(mask.any()):
            found[name] = parameter.detach()[mask].clone()
    return found


def new_entries(name: str, tensor: Tensor, event: Event) -> Tensor:
    mask = torch.zeros_like(tensor, dtype=torch.bool)
    if name.startswith(new_modules(event)):
        mask.fill_(True)
    for slab in event.slabs:
        if slab.tensor == name:
            slab.write(mask, True)
    return mask


def check_laws(whole: Finished, grown: dict[str, Tensor]) -> None:
    run = whole.run
    held = [id(p) for each in run.optimizer.groups() for p in each["params"]]
    assert sorted(held) == sorted(id(p) for p in run.model.parameters())
    assert grown
    for name, value in new_values(run).items():
        assert not torch.equal(value, grown[name]), f"{name} has not moved"
        state = run.optimizer.state_of(name)
        assert state, f"{name} has no state"
    for name, then in grown.items():
        if name.startswith("alike "):
            now = likeness(run)[name]
            assert now < 0.99 or now < then, f"copies stay copies: {name}, {float(then)}"


def likeness(run: Run) -> dict[str, Tensor]:
    """The cosine of the new unit that is most like an old one, by tensor."""
    found: dict[str, Tensor] = {}
    for slab in run.events[0].slabs:
        weight = dict(run.model.named_parameters()).get(slab.tensor)
        if slab.producer and weight is not None and weight.ndim > 1:
            new_F = slab.mask(weight.detach()).flatten(1).any(1)
            rows_FI = nn.functional.normalize(weight.detach().flatten(1), dim=1)
            found[f"alike {slab.tensor}"] = (rows_FI[new_F] @ rows_FI[~new_F].T).max()
    return found
