"""Laws 1, 2 and 4 over the product of what is claimed: operators, models, optimizers, precisions.

Every case is a whole run that grows wider and deeper, by options from `conf/`; a new one is tested
by existing. In float64, operator by operator, law 1 is in test_operators.py; law 3, that copies do
not stay copies, is in test_copies.py.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from run_kit import Finished, branch, differences, options, parts, resume, train

from progtrain.settings import Checkpoints

FLOAT32 = 1e-5  # of the output's size; checks run in full float32 whatever the precision is
MODELS = {
    "mlp": ("model.width=8",),
    "cnn": ("model.width=4", "model.stages=1"),
    "resnet": ("model.width=4", "model.stages=1"),
    "vit": ("model.width=16", "model.heads=2", "model.depth=2"),
    "gpt": (
        *("data=text", "data.length=8", "data.bytes=2000"),
        *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.depth=2"),
    ),
}
PLAIN = ("mlp", "cnn")  # blocks without a branch to halve
ON_CPU = ("fp32", "bf16")
ON_GPU = ("fp32", "tf32", "bf16", "fp16")
SHORT = {
    "ligo": ("widen.steps=2",),
    "firefly": ("widen.steps=2", "widen.candidates=2"),
    "gradmax": ("widen.iterations=2",),
}
GROWN = 7  # steps after which both growths have happened
RUN = (
    *("growth=schedule", "warmup=none", "train.duration=10steps", "train.evaluate_every=10steps"),
    *("growth.stages.deeper.at=2steps", "growth.stages.wider.at=5steps"),
)


def cases() -> list[Any]:
    """Every option of `widen` with every model, optimizer and precision; the options of `deepen`
    and `optimizer_state` take turns. One precision and one optimizer of each are not slow."""
    rows = product(options("widen"), MODELS, options("optimizer"), ON_CPU)
    deepen, policies, kept = options("deepen"), options("optimizer_state"), set[Any]()
    found: list[Any] = []
    for i, (widen, model, optimizer, precision) in enumerate(rows):
        turn = (deepen[i // 3 % len(deepen)], policies[i // 5 % len(policies)])
        case = (widen, model, optimizer, precision, *turn)
        quick = (widen, model) not in kept and i % 5 == len(kept) % 5
        kept |= {(widen, model)} if quick else set()
        marks = [] if quick else [pytest.mark.slow]
        found.append(pytest.param(case, id="-".join(case), marks=marks))
    return found


def gpu_cases() -> list[Any]:
    """Every option of `widen` with every model and precision; the rest takes turns."""
    if not torch.cuda.is_available():
        return [pytest.param((), marks=pytest.mark.skip("no CUDA device is visible"))]
    turning = [options(group) for group in ("optimizer", "deepen", "optimizer_state")]
    rows = product(options("widen"), MODELS, ON_GPU)
    found: list[Any] = []
    for i, (widen, model, precision) in enumerate(rows):
        optimizer, deepen, policy = (
            known[i // (4 + j) % len(known)] for j, known in enumerate(turning)
        )
        case = (widen, model, optimizer, precision, deepen, policy)
        found.append(pytest.param(case, id="-".join(case)))
    return found


def overrides(case: tuple[str, ...]) -> tuple[str, ...]:
    widen, model, optimizer, precision, deepen, policy = case
    if deepen == "interleave_half" and model in PLAIN:
        deepen = "interleave"
    chosen = (
        *(f"model={model}", f"widen={widen}", f"deepen={deepen}", f"optimizer={optimizer}"),
        *(f"hardware.precision={precision}", f"optimizer_state={policy}"),
    )
    return (*RUN, *chosen, *MODELS[model], *SHORT.get(widen, ()))


def check_promises(whole: Finished) -> None:
    assert [event.stage for event in whole.run.events] == ["deeper", "wider"]
    for event in whole.run.events:
        assert event.preservation_error <= FLOAT32 or not event.promised, event.stage
        assert event.params_after > event.params_before


def check_optimizer(whole: Finished) -> None:
    held = [id(p) for group in whole.run.optimizer.groups() for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in whole.run.model.parameters())
    for name, parameter in whole.run.model.named_parameters():
        state = whole.run.optimizer.state_of(name)
        assert state, f"{name} has never been trained"
        assert all(torch.isfinite(tensor).all() for tensor in (parameter, *state.values())), name


@pytest.mark.parametrize("case", cases())
def test_promises_optimizer_and_resume_hold_for_all_that_is_claimed(
    case: tuple[str, ...], tmp_path: Path
) -> None:
    check_laws(overrides(case), tmp_path)


@pytest.mark.parametrize("case", gpu_cases())
def test_they_hold_on_a_gpu_in_every_precision(case: tuple[str, ...], tmp_path: Path) -> None:
    check_laws((*overrides(case), "hardware=gpu", "hardware.deterministic=true"), tmp_path)


def check_laws(chosen: tuple[str, ...], folder: Path) -> None:
    made = parts(*chosen)
    whole = train(replace(made, checkpoint=Checkpoints("1steps", 1000)), folder / "whole")
    check_promises(whole)
    check_optimizer(whole)
    again = resume(made, branch(whole.directory, GROWN, folder / "again"))
    assert not differences(whole, again)
