"""Checkpoints on disk: what goes in comes out, damage is found, and crashes lose nothing saved."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from progtrain.checkpoint import format as layout
from progtrain.checkpoint import prune as pruning
from progtrain.checkpoint import write as writing
from progtrain.checkpoint.format import MANIFEST, Checkpoint, describe, encode_manifest
from progtrain.checkpoint.lock import acquire
from progtrain.checkpoint.prune import sweep
from progtrain.checkpoint.read import latest, read
from progtrain.checkpoint.write import write
from progtrain.errors import BusyError, CheckpointError, EnvironmentProblem, SettingError

FILES = ["MANIFEST.json", "config.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def save(folder: Path, step: int, content: int = 0, keep: int = 2) -> Path:
    """A small checkpoint whose every file depends on `step` and `content`."""
    weight = torch.full((2, 3), float(content)) + torch.arange(3)
    tensors = {"model": {"w": weight, "b": weight[0]}, "optimizer": {"w.step": torch.tensor(step)}}
    return write(folder, step, tensors, {"state": {"content": content}, "config": [step]}, keep)


def content(checkpoint: Checkpoint) -> int:
    """What `save` was given, after checking that all files tell the same."""
    state = checkpoint.documents["state"]
    assert isinstance(state, dict) and isinstance(state["content"], int)
    assert checkpoint.tensors["model"]["w"][0, 0].item() == state["content"]
    assert checkpoint.tensors["optimizer"]["w.step"].item() == checkpoint.step
    assert checkpoint.documents["config"] == [checkpoint.step]
    return state["content"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write often: no waiting for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def steps(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# What goes in comes out


def test_tensors_of_every_kind_come_back_bit_for_bit(folder: Path) -> None:
    base = torch.randn(4, 6)
    tensors: dict[str, Tensor] = {
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "none": torch.empty(0, 5),
        "transposed": base.T,
        "slice": base[1:, ::2],
        "expanded": torch.tensor([1.0]).expand(7),
        "shared": base,
        "parameter": torch.nn.Parameter(base[0]),
        "nan": torch.tensor([math.nan, math.inf, -0.0]),
        "rng": torch.get_rng_state(),
        "bool": torch.tensor([True, False]),
        "a.b/c ü": torch.tensor([1], dtype=torch.int16),
    }
    for dtype in (torch.bfloat16, torch.float16, torch.int8, torch.int64, torch.uint8):
        tensors[str(dtype)] = torch.arange(5).to(dtype)
    back = read(write(folder, 7, {"model": tensors, "empty": {}}, {}, 2))
    assert (back.step, back.documents, back.tensors["empty"], back.skipped) == (7, {}, {}, ())
    assert list(back.tensors["model"]) == sorted(tensors)
    for name, tensor in tensors.items():
        other = back.tensors["model"][name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape), name
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(other.reshape(-1).view(torch.uint8), raw), name
        other.zero_()  # owned by the caller, shared with nothing
    assert base.abs().sum() > 0


def test_documents_come_back_with_nan_and_strange_keys(folder: Path) -> None:
    document = {
        "inf": [math.inf, -math.inf, -0.0, 1e-310, 0.1 + 0.2, 2**80],
        "$float": "nan",
        "$": {"$float": "inf", "$$x": None},
        "text": "\x1b[31m \ud800 ü",
        "deep": {"true": True, "one": 1, "float": 1.0},
    }
    back = read(write(folder, 1, {}, {"state": document, "nan": math.nan, "no": None}, 2))
    assert repr(back.documents["state"]) == repr(document)
    value = back.documents["nan"]
    assert isinstance(value, float) and math.isnan(value)
    assert back.documents["no"] is None


@pytest.mark.parametrize("bad", [{1: 2}, (1, 2), {"a": {3}}, torch.tensor(1.0)])
def test_documents_that_json_would_change_are_refused(folder: Path, bad: object) -> None:
    with pytest.raises(TypeError):
        write(folder, 1, {}, {"state": bad}, 2)  # pyright: ignore[reportArgumentType]
    assert not folder.exists()


def test_what_could_not_be_read_again_is_not_written(folder: Path) -> None:
    deep: list[object] = []
    for _ in range(60):
        deep = [deep]
    with pytest.raises(ValueError, match="deep"):
        write(folder, 1, {}, {"state": deep}, 2)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no name"):
        write(folder, 1, {}, {"../state": 1}, 2)
    with pytest.raises(SettingError, match=r"keep must be a whole number >= 2, got 1"):
        write(folder, 1, {}, {}, 1)


def test_files_are_private_and_nothing_else_is_left(folder: Path) -> None:
    path = save(folder, 1200)
    assert steps(folder) == ["step_00001200"] and sorted(os.listdir(path)) == FILES
    assert {(path / name).stat().st_mode & 0o777 for name in FILES} == {0o600}
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_step_directory_and_a_run_and_its_checkpoints_can_be_named(folder: Path) -> None:
    path = save(folder, 1200, 5)
    for name in (path, folder, folder.parent):
        assert content(read(name)) == 5
    copied = folder.parent.parent / "best"
    shutil.copytree(path, copied)
    assert content(read(copied)) == 5


def test_the_newest_step_is_the_largest_number(folder: Path) -> None:
    for step in (99_999_998, 99_999_999, 100_000_000):
        save(folder, step, keep=3)
    assert latest(folder).step == 100_000_000


# Damage


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_every_flipped_bit_is_found_and_its_file_named(folder: Path) -> None:
    path, chance = save(folder, 1), random.Random(0)
    sizes = {name: 8 * (path / name).stat().st_size for name in FILES}
    flips = [(MANIFEST, bit + chance.randrange(8)) for bit in range(0, sizes[MANIFEST], 8)]
    for _ in range(200):
        name = chance.choice(FILES[1:])
        flips.append((name, chance.randrange(sizes[name])))
    for name, bit in flips:
        flip(path / name, bit)
        with pytest.raises(CheckpointError, match=r"step_00000001 is damaged \(" + name):
            read(path)
        flip(path / name, bit)
    assert content(read(path)) == 0


def test_no_bit_of_a_manifest_can_change_unseen(folder: Path) -> None:
    data = (save(folder, 1) / MANIFEST).read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"\S"):
            layout.decode_manifest(bytes(changed))


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def swap(path: Path) -> None:
    other = path.with_name("state.json" if path.name != "state.json" else "config.json")
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def exchange(path: Path) -> None:
    """Take the file of the other checkpoint."""
    shutil.copy(path.parent.with_name("step_00000001") / path.name, path)


def link(path: Path) -> None:
    elsewhere = path.parent.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def add_file(path: Path) -> None:
    (path.parent / "extra\x1b.json").write_text("{}")


DAMAGE = [cut(0), cut(0.25), cut(0.5), shorten, append, swap, exchange, link, Path.unlink]
DAMAGE += [make_directory, make_pipe, add_file]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_sends_the_reader_to_the_older_checkpoint(
    folder: Path, name: str, damage: Callable[[Path], object], quick: None
) -> None:
    save(folder, 1, content=1)
    path = save(folder, 2, content=2)
    damage(path / name)
    found = latest(folder)
    assert (found.step, content(found)) == (1, 1)
    (sentence,) = found.skipped
    assert sentence.startswith("step_00000002 is damaged (") and sentence.isprintable()
    with pytest.raises(CheckpointError, match=r"is damaged .*Give the run directory"):
        read(path)


def test_a_step_that_is_a_link_or_has_another_steps_name_is_damaged(folder: Path) -> None:
    path = save(folder, 1)
    (folder / "step_00000003").symlink_to(path)
    shutil.copytree(path, folder / "step_00000002")
    assert latest(folder).skipped == (
        "step_00000003 is damaged (not a directory)",
        "step_00000002 is damaged (MANIFEST.json: is of step 1)",
    )


def test_the_sentence_says_which_file_and_what_is_wrong_with_it(folder: Path) -> None:
    path = save(folder, 1200)
    flip(path / "model.safetensors", 9)
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert str(error.value) == (
        "step_00001200 is damaged (model.safetensors: sha256 differs)."
        " Give the run directory to use the newest good one."
    )
    append(path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"\(model.safetensors: \d+ bytes, not \d+\)"):
        read(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"\(model.safetensors: missing\)"):
        read(path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_only_a_failing_disk_counts_as_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save(folder, 1, content=1)
    newest, real = str(save(folder, 2, content=2)), os.open

    def fail(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if str(path).startswith(newest):
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", fail)
    if number == errno.EIO:
        assert content(latest(folder)) == 1
    else:  # to go back to an older one would lose work for a passing trouble
        with pytest.raises(EnvironmentProblem, match=f"Cannot read .*{os.strerror(number)}"):
            latest(folder)


def forge(path: Path, step: int, name: str, data: bytes) -> None:
    """A checkpoint whose hashes are right and whose content is not: hashes prove no author."""
    path.mkdir(parents=True)
    (path / name).write_bytes(data)
    (path / MANIFEST).write_bytes(encode_manifest(describe(step, {name: data})))


HUGE_HEADER = (2**63 - 1).to_bytes(8, "little") + b"{}"
OVERLAP = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
OVERLAP += b'"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}'
NEGATIVE = b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("model.safetensors", HUGE_HEADER),
        ("model.safetensors", len(OVERLAP).to_bytes(8, "little") + OVERLAP + b"123"),
        ("model.safetensors", len(NEGATIVE).to_bytes(8, "little") + NEGATIVE + b"1"),
        ("model.safetensors", b""),
        ("state.json", b""),
        ("state.json", b"\xff"),
        ("state.json", b'{"a": 1, "a": 2}'),
        ("state.json", b"[NaN, Infinity]"),
        ("state.json", b'{"$float": "1e999"}'),
        ("state.json", b'{"$class": "os.system"}'),
        ("state.json", b"[" * 60 + b"]" * 60),
        ("state.json", b"[" * 100_000 + b"]" * 100_000),
        ("state.json", b"1" * 5000),
    ],
)
def test_a_forged_file_is_refused_in_words(folder: Path, name: str, data: bytes) -> None:
    forge(folder / "step_00000001", 1, name, data)
    with pytest.raises(CheckpointError, match=r"damaged \(" + name):
        read(folder)


@pytest.mark.parametrize("name", ["../state.json", "/etc/passwd", "a/b.json", "x.pkl", MANIFEST])
def test_a_manifest_cannot_name_foreign_files(folder: Path, name: str) -> None:
    path = folder / "step_00000001"
    path.mkdir(parents=True)
    (path / MANIFEST).write_bytes(encode_manifest(describe(1, {name: b"{}"})))
    with pytest.raises(CheckpointError, match=r"entry .* is not allowed"):
        read(folder)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "pytorch_model.bin", "plain", "zip"])
def test_a_pickle_is_refused_and_none_of_its_code_runs(tmp_path: Path, name: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "hf" / name
    path.parent.mkdir()
    if name == "zip":
        torch.save(Bomb(marker), path)
    else:
        path.write_bytes(pickle.dumps(Bomb(marker)))
    sentence = "This is a PyTorch pickle, not a progtrain checkpoint; refusing to load it"
    with pytest.raises(CheckpointError, match=sentence):
        read(path)
    if "." in name:
        with pytest.raises(CheckpointError, match=sentence):
            read(path.parent)
    forge(tmp_path / "run" / "step_00000001", 1, "model.safetensors", path.read_bytes())
    with pytest.raises(CheckpointError, match="not safetensors"):
        read(tmp_path / "run")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()


# What the user reads


def test_messages_say_what_is_missing_and_what_to_do(folder: Path) -> None:
    run = folder.parent
    run.mkdir()
    for empty in (run, folder):
        with pytest.raises(CheckpointError, match=r"^No checkpoint in \S*run\. Start without"):
            latest(empty)
    save(folder, 1200)
    missing = folder / "step_00001300"
    with pytest.raises(CheckpointError, match=r"not found: \S*1300\. Did you mean 'step_00001200'"):
        read(missing)
    with pytest.raises(CheckpointError, match=r"not found: \S*ran\. Did you mean 'run'\?"):
        read(run.with_name("ran"))
    with pytest.raises(CheckpointError, match=r"not found: \S*deeper\."):
        read(missing / "no" / "deeper")
    with pytest.raises(CheckpointError, match="is a file, not a checkpoint"):
        read(folder / "step_00001200" / "model.safetensors")
    (folder / "step_00001200" / "state.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No usable .*: step_00001200 is damaged \(state"):
        read(run)
    assert CheckpointError.exit_code == 4


def test_a_newer_format_is_not_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, 1)
    with monkeypatch.context() as future:
        future.setattr(layout, "FORMAT", 4)
        path = save(folder, 2)
    for name in (path, folder):
        with pytest.raises(CheckpointError) as error:
            read(name)
        sentence = "Checkpoint format 4; this progtrain reads up to 1. Upgrade progtrain."
        assert str(error.value) == sentence
    assert read(folder / "step_00000001").step == 1


# Writing again, pruning


def test_the_same_checkpoint_is_not_written_twice(folder: Path) -> None:
    path = save(folder, 5, content=1)
    inode = path.stat().st_ino
    assert save(folder, 5, content=1).stat().st_ino == inode
    assert save(folder, 5, content=2).stat().st_ino != inode
    assert content(latest(folder)) == 2 and steps(folder) == ["step_00000005"]


@pytest.mark.parametrize("damage", [shorten, link, make_directory, add_file])
def test_a_damaged_checkpoint_of_the_same_step_is_replaced(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    damage(save(folder, 5) / "model.safetensors")
    save(folder, 5, content=3)
    assert content(latest(folder)) == 3 and latest(folder).skipped == ()


def test_prune_counts_only_checkpoints_that_verify(folder: Path, quick: None) -> None:
    for step in (1, 2, 3):
        save(folder, step, keep=3)
    shorten(folder / "step_00000003" / "state.json")
    save(folder, 4)
    assert steps(folder) == ["step_00000002", "step_00000003", "step_00000004"]
    save(folder, 5)
    assert steps(folder) == ["step_00000004", "step_00000005"]


def test_prune_spares_what_was_just_written_and_what_is_not_ours(folder: Path, quick: None) -> None:
    for step in (10, 20, 30):
        save(folder, step, keep=3)
    foreign = ["notes.txt", "step_1", "step_00000001.bak", ".tmp-keep", "step_00000001x"]
    for name in foreign:
        (folder / name).mkdir()
    assert content(read(save(folder, 5, content=9))) == 9
    assert steps(folder) == sorted([*foreign, "step_00000005", "step_00000020", "step_00000030"])
    (folder / "step_00000020" / "thesis.tex").write_text("x")
    for step in (40, 50):
        save(folder, step)
    assert os.listdir(folder / "step_00000020") == ["thesis.tex"]


def test_a_half_removed_checkpoint_has_lost_its_manifest_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(folder, step)
    removed: list[str] = []
    real = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (removed.append(path.name), real(path)))
    save(folder, 3)
    assert removed[0] == MANIFEST and sorted(removed) == FILES


def test_sweep_removes_leftovers_and_ends_replacements(folder: Path) -> None:
    save(folder, 1, content=1)
    path, name = save(folder, 2, content=2), f".old-00000002-{0:032x}"
    temporary = folder / f".tmp-00000003-{0:032x}"
    shutil.copytree(path, temporary)
    shutil.copytree(path, folder / name)
    sweep(folder)
    assert steps(folder) == ["step_00000001", "step_00000002"]
    path.rename(folder / name)
    assert content(latest(folder)) == 2
    sweep(folder)
    assert content(read(path)) == 2
    shutil.copytree(path, folder / name)
    shorten(path / "state.json")
    sweep(folder)
    found = latest(folder)
    assert (found.path.name, content(found), len(found.skipped)) == (name, 2, 1)
    sweep(folder.parent / "none")


def test_too_little_space_is_said_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, 1)
    usage = shutil.disk_usage(folder)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EnvironmentProblem) as error:
        save(folder, 2)
    assert f"bytes; {folder} has 100 bytes free." in str(error.value)
    assert steps(folder) == ["step_00000001"] and error.value.exit_code == 5


@pytest.mark.parametrize("place", ["file", "file/checkpoints", "x" * 300])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match=f"Cannot create .*{place}"):
        save(tmp_path / place, 1)


# Faults at every call

CALLS = ["open", "write", "fsync", "close", "mkdir", "rename", "unlink", "rmdir", "listdir"]
CALLS += ["lstat", "statvfs"]


@dataclass
class Fault:
    """Lets the `at`-th call into the operating system fail, and `lasting`ly those after it."""

    number: int
    at: int
    lasting: bool = False
    count: int = 0

    @property
    def fired(self) -> bool:
        return self.count >= self.at

    def check(self) -> None:
        self.count += 1
        if self.count == self.at or (self.lasting and self.fired):
            raise OSError(self.number, os.strerror(self.number))


@contextmanager
def failing(fault: Fault) -> Generator[None]:
    def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if name == "close":
                real(*args)  # a failing close closes
                return fault.check()
            if name == "write":
                file, data = args
                assert isinstance(data, memoryview)
                args = (file, data[: max(1, len(data) // 2)])  # short, as a full disk does
            fault.check()
            return None if name == "fsync" else real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS])
def test_an_error_at_any_call_keeps_what_was_saved(
    tmp_path: Path, quick: None, number: int, step: int
) -> None:
    save(tmp_path / "before", 1, content=1)
    save(tmp_path / "before", 2, content=2)
    raised = 0
    for at in itertools.count(1):
        folder, fault = tmp_path / str(at), Fault(number, at)
        shutil.copytree(tmp_path / "before", folder)
        try:
            with failing(fault):
                save(folder, step, content=9)
            saved = True
        except EnvironmentProblem as error:
            saved = "is saved" in str(error)
            raised += 1
            assert str(folder) in str(error) and os.strerror(number) in str(error)
        found = latest(folder)
        assert found.skipped == () and content(found) in ((9,) if saved else (2, 9))
        assert not [name for name in os.listdir(folder) if name.startswith(".tmp")]
        assert len([path for path in folder.glob("step_*") if pruning._is_good(path)]) >= 2  # pyright: ignore[reportPrivateUsage]
        save(folder, 4, content=4)
        assert content(latest(folder)) == 4 and len(os.listdir(folder)) == 2
        shutil.rmtree(folder)
        if not fault.fired:
            break
    assert raised > 30


@pytest.mark.parametrize("step", [2, 3])
def test_a_disk_that_stays_broken_keeps_what_was_saved(
    tmp_path: Path, quick: None, step: int
) -> None:
    save(tmp_path / "before", 1, content=1)
    save(tmp_path / "before", 2, content=2)
    for at in itertools.count(1):
        folder, fault = tmp_path / str(at), Fault(errno.EROFS, at, lasting=True)
        shutil.copytree(tmp_path / "before", folder)
        try:
            with failing(fault):
                save(folder, step, content=9)
        except EnvironmentProblem:
            assert fault.fired
        assert content(latest(folder)) in (2, 9) and latest(folder).skipped == ()
        sweep(folder)
        assert [name for name in os.listdir(folder) if not name.startswith("step_")] == []
        shutil.rmtree(folder)
        if not fault.fired:
            break


def test_an_interrupt_at_any_call_leaves_no_stump(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt(Fault):
        def check(self) -> None:
            self.count += 1
            if self.count == self.at:
                raise KeyboardInterrupt

    save(tmp_path / "before", 2, content=2)
    for at in itertools.count(1):
        folder, fault = tmp_path / str(at), Interrupt(0, at)
        shutil.copytree(tmp_path / "before", folder)
        try:
            with failing(fault):
                save(folder, 2, content=9)
        except KeyboardInterrupt:
            assert fault.fired
        assert content(latest(folder)) in (2, 9) and latest(folder).skipped == ()
        assert not [name for name in os.listdir(folder) if name.startswith(".tmp")]
        shutil.rmtree(folder)
        if not fault.fired:
            break
    assert at > 30


# Power loss: everything not yet forced to the disk may be there, absent, half there or zeros


@dataclass
class File:
    data: bytes = b""
    durable: bytes = b""

    def images(self) -> list[bytes]:
        if self.data == self.durable:
            return [self.data]
        size = len(self.data)
        return [self.durable, self.data, self.data[: size // 2], bytes(size)]


@dataclass
class Folder:
    """Changes of names in one directory; those before `durable` survive, later ones in order."""

    log: list[dict[str, File | Folder | None]] = field(
        default_factory=lambda: list[dict[str, "File | Folder | None"]]()
    )
    durable: int = 0

    def entries(self, upto: int | None = None) -> dict[str, File | Folder]:
        names: dict[str, File | Folder | None] = {}
        for change in self.log[:upto]:
            names |= change
        return {name: node for name, node in names.items() if node is not None}

    def images(self) -> list[object]:
        """All directories that a crash now can leave: tuples of (name, bytes or tuple)."""
        found: dict[object, None] = {}
        for upto in range(self.durable, len(self.log) + 1):
            entries = sorted(self.entries(upto).items())
            for contents in itertools.product(*(node.images() for _, node in entries)):
                found[tuple(zip((name for name, _ in entries), contents, strict=True))] = None
                assert len(found) < 5000, "the writer leaves too much for later"
        return list(found)


@dataclass
class Disk:
    """Follows the writer's calls below `root`, and asks `after` after each."""

    root: Path
    after: Callable[[], None]
    top: Folder = field(default_factory=Folder)
    files: dict[int, File | Folder] = field(default_factory=lambda: dict[int, "File | Folder"]())

    def find(self, path: object) -> tuple[Folder, str]:
        *parents, name = Path(str(path)).relative_to(self.root).parts
        here = self.top
        for parent in parents:
            there = here.entries()[parent]
            assert isinstance(there, Folder)
            here = there
        return here, name

    def change(self, path: object, node: File | Folder | None) -> None:
        folder, name = self.find(path)
        folder.log.append({name: node})

    def note(self, call: str, args: tuple[object, ...], result: object) -> None:
        match call, args:
            case "open", (path, int(flags), *_) if isinstance(result, int):
                self.files.pop(result, None)
                if Path(str(path)) == self.root:
                    self.files[result] = self.top
                elif not Path(str(path)).is_relative_to(self.root):
                    return
                elif flags & os.O_CREAT:
                    self.files[result] = File()
                    self.change(path, self.files[result])
                elif flags & os.O_DIRECTORY:
                    folder, name = self.find(path)
                    self.files[result] = folder.entries()[name]
            case "write", (int(file), data) if isinstance(data, memoryview):
                node = self.files[file]
                assert isinstance(node, File)
                node.data += bytes(data)
            case "fsync", (int(file),):
                match self.files.get(file):
                    case File() as node:
                        node.durable = node.data
                    case Folder() as node:
                        node.durable = len(node.log)
                    case None:
                        pass
            case "mkdir", (path, *_):
                self.change(path, Folder())
            case "rename", (old, new):
                (folder, name), (_, other) = self.find(old), self.find(new)
                folder.log.append({name: None, other: folder.entries()[name]})
            case (("unlink" | "rmdir"), (path, *_)):
                self.change(path, None)
            case _:
                return
        self.after()

    @contextmanager
    def watching(self) -> Generator[None]:
        def wrap(name: str, real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                result = None if name == "fsync" else real(*args, **kwargs)
                self.note(name, args, result)
                return result

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir"):
                patch.setattr(os, name, wrap(name, getattr(os, name)))
            yield


def lay(image: object, path: Path) -> None:
    """Put a crash image on the real disk."""
    if isinstance(image, bytes):
        path.write_bytes(image)
        return
    path.mkdir()
    assert isinstance(image, tuple)
    for name, inner in image:
        lay(inner, path / name)


def crash_images(root: Path, saves: list[tuple[int, int]]) -> set[tuple[object, int, int]]:
    """All (image, content acknowledged last, content being written) while `saves` are made."""
    found: set[tuple[object, int, int]] = set()
    acknowledged = coming = -1
    disk = Disk(root, lambda: found.update((i, acknowledged, coming) for i in disk.top.images()))
    root.mkdir()
    with disk.watching():
        for step, number in saves:
            coming = number
            save(root / "checkpoints", step, content=number)
            acknowledged = number
            disk.after()
    return found


def lost(images: set[tuple[object, int, int]], place: Path) -> list[str]:
    """What is wrong with what the reader finds after each crash."""
    wrong: list[str] = []
    place.mkdir()
    for number, (image, acknowledged, coming) in enumerate(images):
        folder = place / str(number) / "checkpoints"
        lay(image, folder.parent)
        try:
            found = latest(folder)
            if content(found) not in (acknowledged, coming) or found.skipped:
                wrong.append(f"{content(found)} for {acknowledged}, {found.skipped}")
            sweep(folder)
            if content(latest(folder)) != content(found):
                wrong.append("sweep lost a checkpoint")
        except CheckpointError as error:
            if acknowledged != -1:
                wrong.append(str(error))
        shutil.rmtree(folder.parent)
    return wrong


HISTORIES = {
    "steps in order": [(1, 1), (2, 2), (3, 3), (4, 4)],
    "the only one again": [(1, 1), (1, 2), (1, 3)],
    "an older one again": [(2, 1), (3, 2), (3, 3), (4, 4)],
}


@pytest.mark.parametrize("history", HISTORIES)
def test_power_loss_never_takes_a_saved_checkpoint(tmp_path: Path, history: str) -> None:
    images = crash_images(tmp_path / "run", HISTORIES[history])
    assert len(images) > 100
    assert lost(images, tmp_path / "images") == []


def skip_directory_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writing, "_sync", lambda _: None)


def skip_sync_of(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def install(patch: pytest.MonkeyPatch) -> None:
        real = writing._sync  # pyright: ignore[reportPrivateUsage]
        patch.setattr(writing, "_sync", lambda path: None if name in path.name else real(path))

    return install


def skip_file_sync(patch: pytest.MonkeyPatch) -> None:
    real = writing._write_file  # pyright: ignore[reportPrivateUsage]

    def write_file(path: Path, data: bytes) -> None:
        if path.name != "model.safetensors":
            real(path, data)
            return
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(file, memoryview(data))
        os.close(file)

    patch.setattr(writing, "_write_file", write_file)


def prune_first(patch: pytest.MonkeyPatch) -> None:
    def publish(temporary: Path, final: Path) -> None:
        os.rename(temporary, final)
        pruning.prune(final.parent, final, 1)
        writing._sync(final.parent)  # pyright: ignore[reportPrivateUsage]

    patch.setattr(writing, "_publish", publish)


def delete_before_replacing(patch: pytest.MonkeyPatch) -> None:
    def publish(temporary: Path, final: Path) -> None:
        pruning.remove(final)
        os.rename(temporary, final)
        writing._sync(final.parent)  # pyright: ignore[reportPrivateUsage]

    patch.setattr(writing, "_publish", publish)


@pytest.mark.parametrize(
    ("mutant", "history"),
    [
        (skip_directory_sync, "steps in order"),
        (skip_sync_of(".tmp-"), "steps in order"),
        (skip_sync_of("checkpoints"), "steps in order"),
        (skip_sync_of("run"), "steps in order"),
        (skip_file_sync, "steps in order"),
        (prune_first, "steps in order"),
        (delete_before_replacing, "the only one again"),
    ],
)
def test_the_power_loss_model_sees_a_careless_writer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutant: Callable[[pytest.MonkeyPatch], None],
    history: str,
) -> None:
    mutant(monkeypatch)
    images = crash_images(tmp_path / "run", HISTORIES[history][:2])
    some = sorted(images, key=lambda image: hashlib.sha256(repr(image).encode()).digest())[:300]
    assert lost(set(some), tmp_path / "images") != []


# The lock


@contextmanager
def process(code: str, run: Path) -> Generator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs `code`, once it has printed a number."""
    head = f"import os, time; from pathlib import Path; run = Path({str(run)!r})\n"
    head += "from progtrain.checkpoint.lock import acquire\n"
    command = [sys.executable, "-c", head + code + "\ntime.sleep(60)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            yield started, int(started.stdout.readline())
        finally:
            started.kill()


def test_a_second_run_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with process("lock = acquire(run); print(os.getpid(), flush=True)", run) as (holder, pid):
        sentence = rf"^{run} is in use by pid {pid} on host \S+ since \d{{4}}-\S+T\S+\. Wait"
        with pytest.raises(BusyError, match=sentence) as error:
            acquire(run)
        assert error.value.exit_code == 6 and "choose another hydra.run.dir." in str(error.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with acquire(run) as lock:
            assert json.loads(lock.path.read_text())["pid"] == os.getpid()
            with pytest.raises(BusyError, match=f"pid {os.getpid()} "):
                acquire(run)
        acquire(run).release()


def test_a_forked_worker_does_not_keep_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    code = "lock = acquire(run)\nif not os.fork(): print(os.getpid(), flush=True)"
    with process(code, tmp_path) as (holder, worker):
        try:
            with pytest.raises(BusyError):
                acquire(tmp_path)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(worker, 0)  # still there
            acquire(tmp_path).release()
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_lock_that_cannot_be_made_or_read_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match=r"Cannot write to output directory .*file"):
        acquire(tmp_path / "file")
    (tmp_path / ".lock").symlink_to(tmp_path / "file")
    with pytest.raises(EnvironmentProblem, match="Cannot write to output directory"):
        acquire(tmp_path)
    run = tmp_path / "run"
    with acquire(run) as lock:
        lock.path.write_text('{"pid": 1, "host": "\x1b[2J", "since": "now"}')
        with pytest.raises(BusyError, match="is in use by another process"):
            acquire(run)
