"""Text as bytes: windows, a split without leakage, the same text every time, useful refusals."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from progtrain.data.sets import Batches, Sets, Split
from progtrain.data.source import standard_library
from progtrain.data.text import Text, windows
from progtrain.errors import ConfigError, SettingError

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "text"


def _text(path: Path | str | None, length: int, **more: object) -> Text:
    told = None if path is None else str(path)
    return Text(told, length, shape=[length], **more)  # type: ignore[arg-type]


def _numbered(folder: Path, size: int) -> Path:
    """A file whose bytes say where they stand (two bytes a place)."""
    file = folder / "numbered.txt"
    file.write_bytes(b"".join(n.to_bytes(2, "big") for n in range(size // 2)))
    return file


def _places(split: Split) -> set[int]:
    """Where in a numbered file the bytes of a split stand, two bytes a place."""
    joined_NL = torch.cat([split.x[:, :1], split.y], 1).int()
    starts = range(0, joined_NL.shape[1] - 1, 2)
    return {int(row[i]) * 256 + int(row[i + 1]) for row in joined_NL for i in starts}


def test_a_window_is_read_and_predicts_the_byte_after_each_of_its_bytes() -> None:
    text = torch.arange(23, dtype=torch.uint8)
    split = windows(text, 4)
    assert split.x.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13], [15, 16, 17, 18]]
    assert torch.equal(split.y, split.x + 1)
    assert split.x.untyped_storage().data_ptr() == text.untyped_storage().data_ptr()


def test_parts_are_contiguous_in_order_and_share_no_byte(tmp_path: Path) -> None:
    file = _numbered(tmp_path, 4000)
    sets = _text(file, 7, validation=0.2, test=0.1).load()
    assert sets.test is not None
    train, validation, test = map(_places, (sets.train, sets.validation, sets.test))
    assert len(train) + len(validation) + len(test) > 1950, "windows leave nearly nothing out"
    assert max(train) < 1400 <= min(validation)
    assert max(validation) < 1800 <= min(test)


def test_without_a_test_share_the_end_of_the_text_is_the_validation_part(tmp_path: Path) -> None:
    sets = _text(_numbered(tmp_path, 4000), 7, validation=0.25).load()
    assert sets.test is None
    assert (min(_places(sets.validation)), max(_places(sets.validation))) == (1500, 1999)
    assert max(_places(sets.train)) < 1500


def test_the_embedded_text_is_the_standard_library_in_order() -> None:
    first, again = _text(None, 128).load(), _text(None, 128).load()
    assert torch.equal(first.train.x, again.train.x)
    assert torch.equal(first.validation.y, again.validation.y)
    windows_seen = len(first.train) + len(first.validation)
    assert windows_seen == 1_800_000 // 129 + 200_000 // 129
    begins = standard_library()[0].read_bytes()[:128]
    assert bytes(first.train.x[0].tolist()) == begins
    assert standard_library() == sorted(standard_library())
    limited = _text(None, 16, bytes=1000).load()
    assert torch.equal(limited.train.x[0], first.train.x[0, :16])
    assert len(limited.train) == 900 // 17


def test_batches_are_whole_numbers_for_embeddings_and_losses() -> None:
    sets = _text(None, 16, bytes=2000).load()
    assert sets.train.x.dtype == torch.uint8
    batches = Batches(sets, 0, torch.device("cpu"))
    for x, y in (batches.at(5, 3), next(batches.every(sets.validation, 3))):
        assert (x.dtype, y.dtype) == (torch.int64, torch.int64)
        assert (x.shape, y.shape) == ((3, 16), (3, 16))
        assert torch.equal(x[:, 1:], y[:, :-1])


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "books" / "deep").mkdir(parents=True)
    (tmp_path / "books" / "b.txt").write_bytes(b"second" * 9)
    (tmp_path / "books" / "a.txt").write_bytes(b"first!" * 9)
    (tmp_path / "books" / "deep" / "c.md").write_bytes(b"third." * 9)
    (tmp_path / "books" / ".hidden").write_bytes(b"x" * 99)

    def read(path: Path) -> bytes:
        sets = _text(path, 5, validation=0.2).load()
        return bytes(torch.cat([sets.train.x, sets.train.y[:, -1:]], 1).flatten().tolist())

    assert read(tmp_path / "books").startswith(b"first!" * 9 + b"second" * 9 + b"third." * 3)
    assert read(tmp_path / "books" / "*.txt") == (b"first!" * 9 + b"second" * 9)[:84]
    assert b"second" not in read(tmp_path / "books" / "a.txt")


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    sets = _text(_numbered(tmp_path, 4000), 7, bytes=800, validation=0.25).load()
    assert max(_places(sets.validation)) == 399


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"length": 0, "shape": [0]}, "length must be a whole number >= 1"),
        ({"shape": [64]}, r"shape must be \[128\], got \[64\]. Set data.length instead"),
        ({"num_classes": 128}, "num_classes must be 256 or more"),
        ({"bytes": 0}, "bytes must be a whole number >= 1"),
        ({"validation": 0.0}, "validation must be a share in"),
        ({"validation": 0.7, "test": 0.3}, "test must be a share in"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(more: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Text(**more)  # type: ignore[arg-type]


def test_a_missing_an_empty_and_a_short_text_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"No text in data.path=.*Did you mean 'novel.txt'"):
        _text(tmp_path / "novle.txt", 8).load()
    with pytest.raises(ConfigError, match=r"No text in data\.path"):
        _text(tmp_path / "*.md", 8).load()
    with pytest.raises(ConfigError, match="is a folder without files"):
        _text(tmp_path / "empty", 8).load()
    with pytest.raises(ConfigError, match="holds no text"):
        _text(tmp_path / "novel.txt", 8).load()
    short = _numbered(tmp_path, 100)
    with pytest.raises(ConfigError) as caught:
        _text(short, 10, validation=0.1).load()
    told = str(caught.value)
    assert "its validation part has 10 bytes (data.validation=0.1 of 100)" in told
    assert "data.length + 1 = 11" in told
    assert "data.length=9 or less" in told
    assert len(_text(short, 9, validation=0.1).load().validation) == 1


def test_what_the_settings_say_is_held_against_tokens_too() -> None:
    x = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    sets = Sets(Split(x, x), Split(x, x), None, lambda t: t)
    sets.check((4,), 12, 3)
    with pytest.raises(ConfigError, match=r"Set data.shape=\[4\]"):
        sets.check((5,), 12, 3)
    with pytest.raises(ConfigError, match=r"Label 11 found \(sample 2\)"):
        sets.check((4,), 11, 3)


@pytest.mark.slow
def test_a_decoder_learns_shakespeare(tmp_path: Path) -> None:
    packed = SHARED / "tinyshakespeare.txt.xz"
    if not packed.is_file():
        pytest.skip("the real text is not on this machine")
    (tmp_path / "plays.txt").write_bytes(lzma.decompress(packed.read_bytes()))
    model = "model=gpt model.width=64 model.depth=2 data=text data.path=plays.txt data.length=64"
    short = "growth=none train.duration=250steps train.batch_size=32 data.bytes=300000"
    rest = "data.test=0.1 train.evaluate_every=125steps hardware.threads=1 hydra.run.dir=run"
    done = subprocess.run(
        [sys.executable, "-m", "progtrain", *f"{model} {short} {rest}".split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"]["test/loss"] < 2.7, "3.3 is what single letters cost"
    assert result["metric"] > 0.25
