"""Processes of one run: started, ended by signals, lost; what is refused before they start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from progtrain import cli
from progtrain.command_line import spawn
from progtrain.command_line.ranks import attempt
from progtrain.errors import DivergedError, EnvironmentProblem, Interrupted, SettingError
from progtrain.hardware import devices
from progtrain.hardware.ddp import DDP
from progtrain.hardware.engine import Engine, Settings
from progtrain.hardware.fsdp import FSDP
from progtrain.hardware.place import first_host, here, translate_slurm
from progtrain.hardware.torch_shards import TorchShards

ROOT = Path(__file__).parent.parent
TINY = (
    "data=synthetic", "data.samples=128", "data.shape=[1,4,4]", "model=mlp", "model.width=8",
    "train.batch_size=32", "hardware=ddp", "hardware.device=cpu", "hardware.devices=2",
    "checkpoint.every=8steps", "report.page=false",
)  # fmt: skip


def start(directory: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "PYTHONUNBUFFERED": "1"}  # fmt: skip
    command = [sys.executable, "-m", "progtrain", *TINY, *words, f"hydra.run.dir={directory}"]
    return subprocess.Popen(command, env=environment, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def children(pid: int) -> list[int]:
    """The ranks of a command."""
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(each) for each in told if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


def going(process: subprocess.Popen[str]) -> list[int]:
    """Wait for the first evaluation; the ranks."""
    assert process.stdout is not None
    for line in process.stdout:
        if "val/accuracy" in line and "step" in line:
            return children(process.pid)
    raise AssertionError(process.communicate()[1])


def gone(pids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(
            Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in pids
        ):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_signal_to_the_whole_group_ends_all_ranks_with_one_checkpoint(tmp_path: Path) -> None:
    one = start(tmp_path / "a", "train.duration=4000steps")
    ranks = going(one)
    os.killpg(one.pid, signal.SIGTERM)
    _, err = one.communicate(timeout=60)
    assert one.returncode == 143, err
    assert err.count("Continue with: progtrain resume=") == 1
    assert len(ranks) == 2 and gone(ranks)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "interrupted"


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_with_its_number_and_its_signal(tmp_path: Path) -> None:
    one = start(tmp_path / "a", "train.duration=4000steps")
    ranks = going(one)
    begun = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    _, err = one.communicate(timeout=60)
    assert time.monotonic() - begun < 10 and gone(ranks)
    assert one.returncode == 5, err
    assert re.search(r"Rank 1 of 2 \(pid \d+\) was ended by SIGKILL", err)
    assert err.count("error:") == 1
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_no_rank_outlives_its_command(tmp_path: Path) -> None:
    one = start(tmp_path / "a", "train.duration=4000steps")
    ranks = going(one)
    one.kill()
    one.communicate()
    assert len(ranks) == 2 and gone(ranks)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("train.batch_size=33",), 2, "divisible by 2. Try 32 or 34."),
        (("hardware.device=gpu",), 5, "hardware.device=gpu, but no CUDA device is visible"),
        (("hardware.precision=fp16",), 5, "hardware.precision=fp16 needs a GPU"),
        (("hardware.devices=0",), 2, "hardware.devices must be a whole number, 1 to 1024, or null"),
        (("hardware=gpu", "~hardware.device", "~hardware.devices"), 5, "no CUDA device is visible"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    typed = [
        w for w in TINY if not any(w.split("=")[0] == x.lstrip("~").split("=")[0] for x in words)
    ]
    words = tuple(w for w in words if not w.startswith("~"))
    assert cli.run([*typed, *words, f"hydra.run.dir={tmp_path / 'a'}"]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_half_of_torchruns_names_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EnvironmentProblem, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not"):
        DDP(device="cpu").processes()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: f"card {number}")
    with pytest.raises(EnvironmentProblem, match=r"0 \(card 0\), 1 \(card 1\). Try hardware.devi"):
        DDP(devices=3).processes()
    assert DDP().processes() == 2


def test_slurms_names_become_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
            "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "42",
            "SLURM_NNODES": "2"}  # fmt: skip
    monkeypatch.setattr(os, "environ", dict(told))
    translate_slurm()
    place = here()
    assert place is not None and (place.rank, place.world, place.local_world) == (3, 4, 2)
    assert os.environ["MASTER_ADDR"] == "gpu07"
    assert first_host("a1,b2") == "a1" and first_host("n[1,3]-x") == "n1-x"


@pytest.mark.parametrize(
    "error",
    [DivergedError("Loss became nan.", {"step": 3}), Interrupted(15, "Continue with: x"),
     SettingError("lr", 0, "> 0")],
)  # fmt: skip
def test_an_error_is_the_same_in_another_process(error: Exception) -> None:
    def fail() -> float:
        raise error

    back = attempt(fail, 1).error()
    assert type(back) is type(error) and str(back) == str(error) and vars(back) == vars(error)


def test_jobs_at_once_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(devices, "gpus", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    for number in range(3):
        devices.take_turn(number)
    assert taken == [0, 1, 0]
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: f"card {number}")
    with pytest.raises(EnvironmentProblem, match=r"hardware.index=2.*0 \(card 0\), 1 \(card 1\)"):
        devices.gpu(2)


@pytest.mark.parametrize(
    ("visible", "count", "blocks"),
    [(None, 2, ["0,1", "2,3", "0,1"]), ("4,5,6,7", 2, ["4,5", "6,7", "4,5"]),
     ("GPU-a,GPU-b,GPU-c,GPU-d", 3, ["GPU-a,GPU-b,GPU-c"] * 3), (None, 1, ["0", "1", "2"])],
)  # fmt: skip
def test_jobs_at_once_of_several_processes_take_blocks_of_gpus_in_turn(
    visible: str | None, count: int, blocks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = [spawn._environment(0, count, 1, turn).get("CUDA_VISIBLE_DEVICES") for turn in range(3)]  # pyright: ignore[reportPrivateUsage]
    assert seen == blocks
    assert "CUDA_VISIBLE_DEVICES" not in spawn._environment(0, count, 1, None)  # pyright: ignore[reportPrivateUsage]


def test_where_a_network_in_shards_is_whole() -> None:
    gpu, cpu, meta = (torch.device(name) for name in ("cuda", "cpu", "meta"))
    assert FSDP()._shards(gpu, 2).home == cpu  # pyright: ignore[reportPrivateUsage]
    assert FSDP(grow_on="device")._shards(gpu, 2).home == gpu  # pyright: ignore[reportPrivateUsage]
    engine = Engine(
        cpu, Settings("fp32", False, True, None, True), shards=TorchShards(cpu, 2, meta)
    )
    assert next(engine.place(torch.nn.Linear(2, 2)).parameters()).is_meta
    with pytest.raises(SettingError, match="grow_on must be cpu or device, got 'gpu'"):
        FSDP(grow_on="gpu")
