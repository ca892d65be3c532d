"""Runs of two processes on a CPU: the same run as one process makes, to rounding."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ranks_kit import Ranks, values
from run_kit import Spy, parts, train

from progtrain import job

# SGD: under Adam a bias before a norm, whose gradient is rounding alone, moves by whole steps
GROWN = ("growth=schedule", "optimizer=sgd", "train.duration=40steps", "warmup=linear_ramp")
GROWN = (*GROWN, "warmup.length=4steps", "train.accumulate=2", "train.clip=1", "train.ema=0.9")


def trained(overrides: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """What a run comes to, on this rank."""
    made, spy, many = parts(*overrides), Spy(), job.Many
    if "RANK" in os.environ:
        made = replace(made, hardware=Ranks())
    with mock.patch.object(job, "Many", lambda told: many([*told, spy])):
        train(made, directory)
    assert spy.run is not None
    history = [observation.metrics for observation in spy.run.history]
    grown = [event.stage for event in spy.run.events]
    found = {"losses": spy.losses, "digest": spy.digest, "grown": grown, "history": history}
    return {**found, "notes": spy.notes, "clock": spy.run.clock.now}


def test_two_processes_make_the_run_of_one(tmp_path: Path) -> None:
    one = trained(GROWN, tmp_path / "one")
    two = values(2, trained, GROWN, tmp_path / "two")
    assert two[0]["grown"] == one["grown"] == ["deeper", "wider"]
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=2e-6)
    for mine, other in zip(one["history"], two[0]["history"], strict=True):
        assert other == pytest.approx(mine, rel=1e-5)
    same = ("losses", "digest", "history", "clock")
    assert {key: two[1][key] for key in same} == {key: two[0][key] for key in same}
