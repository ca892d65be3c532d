"""Runs of two processes whose network DeepSpeed holds in shards: the run of one, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ranks_kit
import test_ranks
from ranks_kit import ranks
from test_ranks import BUDGET, RAMP, STEADY, TWICE, alike, close, trained

from progtrain.hardware.zero import ZeroShards

has_deepspeed = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not installed: progtrain[deepspeed]"
)


def by_deepspeed(function: Callable[..., Any], *args: Any) -> Any:
    """What a function of test_ranks comes to where its shards are DeepSpeed's."""
    with mock.patch.object(ranks_kit, "TorchShards", ZeroShards):
        return function(*args)


def two(function: Callable[..., Any], *args: Any) -> list[Any]:
    told = ranks(2, by_deepspeed, function, *args)
    ranks_kit._pools.pop(2).end() if 2 in ranks_kit._pools else None
    assert not any(each.error for each in told), "\n".join(each.error for each in told)
    return [each.value for each in told]


@has_deepspeed
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(RAMP, id="ramp, accumulation, clipping, average"),
        pytest.param(("optimizer=adamw", "optimizer.lr=0.003", "train.clip=1", *RAMP), id="adamw"),
        pytest.param(("warmup=frozen_host", "warmup.isolation=3steps"), id="frozen host"),
        pytest.param(("transfer=distill", "warmup=zero_init"), id="teacher"),
        pytest.param(
            (
                "model=gpt",
                "model.width=16",
                "data=text",
                "data.bytes=4000",
            ),
            id="text",
        ),
        pytest.param(
            ("model=gpt", "model.width=16", "data=text", "data.bytes=4000", *test_ranks.AGAIN),
            id="text, computed again",
        ),
        pytest.param(("model=cnn", "augment=standard", "data.shape=[1,8,8]"), id="images"),
        pytest.param((*BUDGET, "growth/choice=steepest"), id="slope"),
        pytest.param((*BUDGET, "growth/choice=trial", "growth.choice.steps=2"), id="trial"),
        pytest.param(("growth.keep_if='val/accuracy > 2'", *RAMP), id="does not pay"),
        pytest.param(("head=stage", f"+growth.stages.classes={test_ranks.STAGE_HEAD}"), id="heads"),
    ],
)
def test_x(chosen: tuple[str, ...], tmp_path: Path) -> None:
    twice = () if "growth=budget" in chosen else ("growth=schedule", *TWICE)
    settings = (*twice, *STEADY, "train.duration=20steps", *chosen)
    one = trained(settings, tmp_path / "one")
    found = two(trained, settings, tmp_path / "two", False, True)
    alike(found)
    import numpy as np

    print(
        "DIFF",
        max(
            abs(np.array(one["losses"]) - np.array(found[0]["losses"]))
            / abs(np.array(one["losses"]))
        ),
    )
    close(found[0], one)
