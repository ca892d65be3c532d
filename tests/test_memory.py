"""Too little memory or disk is told in one sentence, with exit code 5, and the way on."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from run_kit import at_step, differences, parts, train

from progtrain.errors import EnvironmentProblem, GrowthMemoryError
from progtrain.growth import transaction
from progtrain.hardware.cpu import CPU
from progtrain.memory import memory


def fails(error: Exception):
    def fail(*_: object) -> None:
        raise error

    return fail


REFUSALS = {
    "numpy": MemoryError("Unable to allocate 7 TiB"),
    "a CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate"
                          " memory: you tried to allocate 4 bytes."),
    "a GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
}  # fmt: skip


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_37_too_little_memory_names_the_last_checkpoint(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="Out of memory: ") as caught:
        train(parts("checkpoint.every=5steps"), tmp_path, at_step(12, fails(error)))
    told = str(caught.value)
    assert caught.value.exit_code == 5 and "step_00000010. Try train.batch_size=4 " in told


def test_37_too_little_memory_before_anything_is_stored(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="Nothing had been stored"):
        train(parts(), tmp_path, at_step(2, fails(MemoryError())))


def test_37_too_little_memory_for_a_growth(tmp_path: Path) -> None:
    """The run is stored as it was, and goes on where there is more."""
    made, refusal = parts("growth=schedule"), REFUSALS["a GPU"]
    with (
        mock.patch.object(transaction, "_optimizer", fails(refusal)),
        pytest.raises(
            GrowthMemoryError, match=r"Stage deeper: .*Tried to allocate 2 GiB; [\d,]+ MiB"
        ),
    ):
        train(made, tmp_path / "a")
    assert GrowthMemoryError.exit_code == 5
    assert not differences(
        train(made, tmp_path / "b"), train(replace(made, resume=True), tmp_path / "a")
    )


def test_37_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    made = parts()
    with pytest.raises(RuntimeError, match="shapes"), memory(tmp_path, CPU().open(), made.train):
        raise RuntimeError("shapes do not fit")


def test_41_a_checkpoint_that_will_not_fit_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, usage = parts("growth=schedule"), namedtuple("usage", "total used free")
    whole = train(made, tmp_path / "whole")
    needed = 12 * whole.run.params
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    with pytest.raises(EnvironmentProblem) as caught:
        train(made, tmp_path / "a")
    told = f"A checkpoint needs about {needed:,} bytes; {tmp_path}/a has {needed - 1:,} bytes free."
    assert str(caught.value).startswith(told) and caught.value.exit_code == 5
    assert not list(tmp_path.glob("a/checkpoints/*"))
