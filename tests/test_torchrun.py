"""Processes that torchrun or srun has started are one run: joined, refused, ended and lost."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from run_kit import some
from test_launch import TINY, going, start
from torch.distributed import (
    HashStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
)

from progtrain import cli
from progtrain.command_line import launched, preflight
from progtrain.command_line.ranks import others_gone
from progtrain.errors import ConfigError, EnvironmentProblem
from progtrain.hardware import interface, meeting, place, rounds
from progtrain.hardware.ddp import DDP
from progtrain.hardware.meeting import connect, here, meet, roll_call
from progtrain.hardware.place import NAMES, Place
from progtrain.optimizers.adamw import AdamW
from progtrain.signals import Ended, ending

ROOT = Path(__file__).parent.parent
# the timeout is that of a test which is broken
WORDS = (*(word for word in TINY if word != "hardware.devices=2"), "hardware.timeout=30")


_started: list[subprocess.Popen[str]] = []


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Where the processes of a launch meet, all of them in this one."""
    made = HashStore()
    monkeypatch.setattr(meeting, "meet", lambda rank, seconds: made)
    monkeypatch.setattr(meeting, "_met", dict[Any, Any]())
    monkeypatch.setattr(meeting, "complete", threading.Event())
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    for name, value in zip(NAMES, ("0", "2", "0", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture(autouse=True)
def nobody_stays() -> Generator[None]:
    yield
    for each in _started:
        each.kill()
        each.communicate()
    _started.clear()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def task(rank: int, port: int, *words: str, world: int = 2) -> subprocess.Popen[str]:
    """The command as `srun` starts it."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
        "GLOO_SOCKET_IFNAME": "lo", "SLURM_STEP_NUM_TASKS": str(world), "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "7",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    begun = subprocess.Popen([sys.executable, "-m", "progtrain", *words], env=environment,
                             text=True, start_new_session=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)  # fmt: skip
    _started.append(begun)
    return begun


def tasks(*words: str) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of both."""
    port = free_port()
    running = [task(rank, port, *words) for rank in (1, 0)]
    ended = [(each.communicate(timeout=90), each.returncode) for each in reversed(running)]
    return [(code, out, err) for (out, err), code in ended]


def spawned(directory: Path, *words: str) -> None:
    """The same command, which starts its processes itself."""
    one = start(directory, *words)
    _started.append(one)
    _, err = one.communicate(timeout=90)
    assert one.returncode == 0, err


def alone(directory: Path, *words: str) -> None:
    """The same run by this process."""
    given = [
        *WORDS,
        "hardware.devices=1",
        "hardware.threads=1",
        *words,
        f"hydra.run.dir={directory}",
    ]
    assert cli.run(given) == 0


def stored(directory: Path) -> list[int]:
    """The steps of its checkpoints."""
    return [int(each.name[5:]) for each in (directory / "checkpoints").glob("step_*[0-9]")]


def tasks_of(agent: subprocess.Popen[str]) -> list[int]:
    """What torchrun has started, in the order of ranks."""
    told = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return [
        int(each) for each in told if b"progtrain" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]


def rows(directory: Path) -> list[dict[str, Any]]:
    """What evaluations have seen, seconds aside."""
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k.startswith(("val/", "train/"))} for row in found]


@pytest.mark.slow
def test_tasks_of_srun_are_the_run_that_spawned_processes_are(tmp_path: Path) -> None:
    growing = ("growth=schedule", "train.duration=16steps", "seed=3")
    words = (*WORDS, *growing, f"hydra.run.dir={tmp_path / 'a'}")
    (code, out, err), (other, silent, nothing) = tasks(*words)
    assert code == other == 0, err + nothing
    assert "2 processes" in out and not silent and not nothing
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["status"] == "done" and result["growths"] == 2
    spawned(tmp_path / "b", *growing)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    some(
        [
            (("train.batch_size=33",), 2, "divisible by 2. Try 32 or 34."),
            (("hardware=cpu", "~device"), 2, "has started 2 processes, and this kind of hardware"),
            (("-m", "seed=0,1"), 2, "hydra/launcher=joblib"),
            (("train.clip=-1",), 2, "train.clip"),
        ],
        4,
    ),
)
def test_what_cannot_be_is_told_once_and_ends_all(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    names = [word.split("=")[0] for word in words]
    kept = [word for word in WORDS if word.split("=")[0] not in names]
    if "~device" in words:
        kept = [word for word in kept if not word.startswith("hardware.")]
    given = [word for word in words if not word.startswith("~")]
    (first, _, err), (other, out, nothing) = tasks(*kept, *given, f"hydra.run.dir={tmp_path}/a")
    assert (first, other) == (code, code), err + nothing
    assert err.count("error:") == 1 and message in err
    assert not out and not nothing and not (tmp_path / "a").exists()


@pytest.mark.slow
def test_what_needs_one_process_is_done_by_one(tmp_path: Path) -> None:
    (code, out, _), (other, silent, nothing) = tasks("--version")
    assert (code, other) == (0, 0) and out.startswith("progtrain ") and not silent + nothing
    alone(tmp_path / "a", "train.duration=8steps")
    (code, out, _), (other, silent, nothing) = tasks("task=test", f"checkpoint={tmp_path / 'a'}")
    assert (code, other) == (0, 0) and "accuracy" in out and not silent + nothing


def waiting(directory: Path) -> list[subprocess.Popen[str]]:
    """Two of three processes, which wait for the third."""
    port, words = free_port(), [word for word in WORDS if "batch_size" not in word]
    words += ["train.batch_size=33", f"hydra.run.dir={directory}"]
    begun = [task(rank, port, *words, world=3) for rank in (0, 1)]
    end = time.monotonic() + 60
    while not (directory / "config.yaml").exists():
        assert time.monotonic() < end and begun[0].poll() is None, begun[0].communicate()
        time.sleep(0.1)
    time.sleep(3)
    return begun


@pytest.mark.slow
def test_signals_are_heard_while_others_have_not_come(tmp_path: Path) -> None:
    first, other = waiting(tmp_path / "a")
    begun = time.monotonic()
    other.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGINT)
    # rank 0's code; 5 of one that hears nothing and loses the store
    assert [first.wait(30), other.wait(30)] == [130, 130]
    assert time.monotonic() - begun < 15


@pytest.mark.slow
def test_who_is_lost_while_others_come_ends_the_run_at_once(tmp_path: Path) -> None:
    first, other = waiting(tmp_path / "a")
    begun = time.monotonic()
    other.kill()
    _, err = first.communicate(timeout=30)
    assert first.returncode == 5 and time.monotonic() - begun < 12
    assert err.count("error:") == 1 and "rank 1 came and was lost before the run began" in err


@pytest.mark.slow
def test_torchrun_goes_on_after_a_loss_and_ends_all_with_one_checkpoint(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                   "PYTHONUNBUFFERED": "1", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    words = [*WORDS, "train.duration=100000steps", f"hydra.run.dir={tmp_path / 'a'}"]
    agent = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "--max-restarts=1", "--monitor-interval=0.3", "-m", "progtrain", *words, "resume=auto"],
        env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    _started.append(agent)
    going(agent)
    end = time.monotonic() + 30
    while not stored(tmp_path / "a"):
        assert time.monotonic() < end
        time.sleep(0.1)
    os.kill(tasks_of(agent)[-1], signal.SIGKILL)
    resumed = next(line for line in agent.stdout or () if line.startswith("Resumed at step"))
    assert int(re.sub(r"\D", "", resumed)) >= 8
    going(agent)
    agent.terminate()
    _, err = agent.communicate(timeout=60)
    assert err.count("Continue with: progtrain resume=") == 1, err
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "interrupted"
    last = max(stored(tmp_path / "a"))
    alone(tmp_path / "a", "resume=true", f"train.duration={last + 8}steps")
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_who_is_lost_ends_the_others(tmp_path: Path) -> None:
    port, words = free_port(), (*WORDS, "train.duration=100000steps", f"hydra.run.dir={tmp_path}/a")
    other, first = task(1, port, *words), task(0, port, *words)
    assert first.stdout is not None
    for line in first.stdout:
        if "val/accuracy" in line and "step" in line:
            break
    other.kill()
    _, err = first.communicate(timeout=30)
    assert first.returncode == 5, err
    assert re.search(r"Another process of the run is gone.*continue with progtrain resume=", err)
    assert json.loads((tmp_path / "a" / "result.json").read_text())["status"] == "failed"


def test_a_roll_call_names_who_is_missing() -> None:
    store = HashStore()
    store.set("here/2", "")
    with pytest.raises(EnvironmentProblem, match=r"Of 4 processes rank 1, 3 did not come"):
        roll_call(store, 0, 4, 0.2)
    late = threading.Timer(0.3, lambda: [store.set(f"here/{rank}", "") for rank in (1, 3)])
    late.start()
    roll_call(store, 0, 4, 20)


def test_a_store_that_nobody_opens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    with pytest.raises(EnvironmentProblem, match=f"MASTER_PORT={port} for rank 1"):
        meet(1, 0.1)


def test_a_process_that_gets_no_work_ends_as_rank_0_does(store: Store) -> None:
    codes: list[int] = []
    other = threading.Thread(
        target=lambda: codes.append(launched.follow(Place(1, 2, 1, 2))), daemon=True
    )
    other.start()
    seen = launched.lead(Place(0, 2, 0, 2), lambda: 3 if "RANK" not in os.environ else 1)
    other.join(20)
    assert (seen, codes) == (3, [3]) and os.environ["RANK"] == "0" and not launched.leads()


def test_who_comes_again_hears_nothing_of_an_earlier_start(store: Store) -> None:
    heard: list[str] = []

    def other() -> None:
        own = rounds.come(store, 1)
        heard.append(own.get("word").decode())
        own.set(here(1), "")  # all are here: rank 0 asks nobody any more

    for word in ("first", "second"):
        process = threading.Thread(target=other, daemon=True)
        process.start()
        rounds.convene(store, 2).set("word", word)
        process.join(20)
        time.sleep(0.3)
    assert heard == ["first", "second"]


def test_one_that_dies_while_others_come_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_STOPPED", 0.4)
    store.set("progtrain/heart/old", "7")  # of an earlier start: it never beats, so it is not lost
    store.set("progtrain/come/2", "old")
    own = rounds.convene(store, 3)
    store.set("progtrain/heart/new", "1")
    store.set("progtrain/come/1", "new")
    threading.Timer(0.3, lambda: store.set("progtrain/heart/new", "2")).start()
    begun = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="Of 3 processes rank 1 came and was lost"):
        roll_call(own, 0, 3, 20)
    assert time.monotonic() - begun < 5


def test_the_settings_are_those_of_a_machine_and_the_batch_that_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in zip(NAMES, ("0", "4", "0", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert preflight.processes(DDP(device="cpu", devices=2), AdamW(), 32) == 4
    with pytest.raises(ConfigError, match=r"batch of all 4 processes.* Try 28 or 32\."):
        preflight.processes(DDP(device="cpu"), AdamW(), 30)
    with pytest.raises(ConfigError, match=r"hardware.devices=4, but 2 were started"):
        DDP(device="cpu", devices=4).processes()


def test_what_gloo_says_of_one_that_is_gone_is_said_in_words_that_help(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="Another process of the run is gone"), \
            others_gone(tmp_path):  # fmt: skip
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]")
    with pytest.raises(RuntimeError, match="shapes"), others_gone(tmp_path):
        raise RuntimeError("shapes do not fit")


def test_what_is_no_place_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "x"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"),
                        ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert cli.run(["--version"]) == 5
    assert "RANK='x' must be a whole number" in capsys.readouterr().err
    assert launched.several() is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end(store: Store, number: signal.Signals) -> None:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), number)).start()
    assert launched.follow(Place(1, 2, 1, 2)) == 128 + number


def test_a_signal_is_heard_while_torch_connects() -> None:
    nobody = HashStore()
    nobody.set_timeout(timedelta(seconds=6))
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    begun = time.monotonic()
    with pytest.raises(Ended), ending():
        connect(lambda: nobody.wait(["never"]), 0)  # as torch does: it hears no signal
    assert time.monotonic() - begun < 4


def test_processes_that_cannot_be_reached_are_told_with_what_to_try() -> None:
    def refused() -> None:
        raise RuntimeError("[pair.cc:152] timed out connecting: Connection refused\nmore")

    with pytest.raises(EnvironmentProblem, match=r"Rank 3 cannot .*refused. Try GLOO_SOCKET_IFNAM"):
        connect(refused, 3)


def test_gloo_takes_the_way_to_the_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    assert not list(interface.towards("127.0.0.1"))
    monkeypatch.setattr(interface, "towards", lambda address: iter([f"to_{address}"]))
    interface.choose(Place(0, 2, 0, 2))
    assert not os.environ["GLOO_SOCKET_IFNAME"]  # one machine: gloo's own choice
    interface.choose(Place(0, 4, 0, 2))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "to_node1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    interface.choose(Place(0, 4, 0, 2))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"


def test_a_port_that_is_taken_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"),
                            ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port))):  # fmt: skip
            monkeypatch.setenv(name, value)
        assert cli.run(["--version"]) == 5
    assert f"MASTER_PORT={port} for rank 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "threads"),
    [({"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}, 4),
     ({"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "3"}, None),
     ({"OMP_NUM_THREADS": "1"}, None)],
    ids=["unasked", "asked", "not torchrun"],
)  # fmt: skip
def test_what_torchrun_sets_unasked_leaves_no_core_idle(
    environment: dict[str, str], threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(place, "cpus", lambda: 9)
    assert place.share_of_cores(Place(0, 4, 0, 2)) == threads


def test_one_that_waits_for_rank_0_says_nothing_meanwhile(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(EnvironmentProblem, match=r"No store at MASTER_ADDR=127\.0\.0\.1 .*refused"):
        meet(1, 1.5)
    assert not capfd.readouterr().err
