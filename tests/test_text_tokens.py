"""Text as characters or byte pairs: vocabularies, tokens kept on disk, long texts, runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
import torch
from run_kit import Spy, at_step, differences, parts, resume, train

from progtrain.data import source, token_cache
from progtrain.data import text as text_module
from progtrain.data.codec_characters import Characters
from progtrain.data.sets import Sets
from progtrain.data.text import Text, windows
from progtrain.errors import CheckpointError, ConfigError, EnvironmentProblem, SettingError
from progtrain.start import fingerprint

LINE = "Der Fuß – ein Maß: 12 Zoll, 30 cm.\n"


def _text(folder: Path, content: str | bytes, length: int = 7, **more: object) -> Text:
    file = folder / "text.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    given: dict[str, object] = {"tokens": "characters", "path": str(file), **more}
    return Text(length=length, shape=[length], cache=str(folder / "cache"), **given)  # type: ignore[arg-type]


def _whole(sets: Sets) -> tuple[str, str]:
    """What the windows of both parts hold."""
    assert sets.codec is not None
    joined = [torch.cat([s.x[:, :1].long(), s.y.long()], 1) for s in (sets.train, sets.validation)]
    first, second = (sets.codec.decode(each.flatten().tolist()) for each in joined)
    return first, second


@pytest.mark.parametrize("tokens", ["bytes", "characters", "bpe"])
def test_parts_follow_each_other_whatever_the_tokens(tmp_path: Path, tokens: str) -> None:
    whole = LINE * 60
    sets = _text(tmp_path, whole, 3, tokens=tokens, validation=0.3, vocabulary=280).load()
    first, second = _whole(sets)
    assert whole.startswith(first.strip("\ufffd")) and len(first) > 0.65 * len(whole)
    assert second.strip("\ufffd") in whole and len(second) > 0.25 * len(whole)
    cut = len(whole.encode()) - round(len(whole.encode()) * 0.3)
    rest = whole.encode()[cut:].decode(errors="ignore")
    assert rest.startswith(second.strip("\ufffd")), "cut where the share says, between characters"


def test_a_vocabulary_is_that_of_the_training_part(tmp_path: Path) -> None:
    """Also: what it lacks is one token, counted and told, and costs its own bytes."""
    sets = _text(tmp_path, "ab" * 400 + "abβ🎉" * 25, 3, validation=0.2).load()
    assert isinstance(sets.codec, Characters) and sets.codec.vocabulary == "ab"
    assert (sets.codec.unknown, sets.codec.size) == (True, 3)
    assert _whole(sets)[1].startswith("ab\ufffd\ufffdab")
    assert "data: 50 characters of the validation part are none of the training part" in "".join(
        sets.notes
    )
    # windows are "abβ🎉": the targets b, β and 🎉 are 1 + 2 + 4 bytes
    assert sets.bytes_per_target == 7 / 3
    plain = _text(tmp_path, "ab" * 400).load()
    assert plain.codec == Characters("ab") and len(plain.notes) == 1


@pytest.mark.parametrize("tokens", ["bytes", "characters", "bpe"])
@pytest.mark.parametrize("length", [1, 4, 50])
def test_bytes_for_a_target_are_those_of_the_targets(
    tmp_path: Path, tokens: str, length: int
) -> None:
    sets = _text(tmp_path, LINE * 90, length, tokens=tokens, validation=0.3, vocabulary=300).load()
    assert sets.codec is not None
    words = [sets.codec.token_bytes()[int(token)] for token in sets.validation.y.flatten()]
    assert sets.bytes_per_target == pytest.approx(sum(words) / len(words), rel=1e-12)
    assert (sets.bytes_per_target == 1) == (tokens == "bytes")


def test_a_tokenizer_that_loses_text_counts_bytes_of_the_whole_part(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    lossy = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "Zoll": 1}, "[UNK]"))
    lossy.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    lossy.save(str(tmp_path / "words.json"))
    given = {"tokens": "bpe", "tokenizer": str(tmp_path / "words.json"), "validation": 0.5}
    made = _text(tmp_path, LINE * 40, 3, **given)
    sets = made.load()
    assert made.count_classes() == 2 and int(sets.train.y.max()) == 1
    words = len(LINE.encode()) / len(lossy.encode(LINE).ids)
    assert sets.bytes_per_target == pytest.approx(words, rel=0.01)


def test_validation_can_be_another_text(tmp_path: Path) -> None:
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "one.txt").write_text("Zoll." * 20)
    made = _text(tmp_path, LINE * 60, 4, validation_path=str(tmp_path / "valid"), test=0.25)
    first, second = _whole(sets := made.load())
    assert second == "Zoll." * 20 and sets.test is not None
    assert len(first) == pytest.approx(0.75 * len(LINE * 60), abs=8), "no share is taken off"
    with pytest.raises(ConfigError, match=r"No text in data.validation_path=.*/none"):
        _text(tmp_path, LINE * 60, validation_path=str(tmp_path / "none")).load()
    with pytest.raises(SettingError, match=r"test must be a share in \[0, 1\)"):
        _text(tmp_path, LINE, validation_path="x", test=1.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tokens": "words"}, "tokens must be one of bytes, characters, bpe"),
        ({"vocabulary": 256}, "vocabulary must be a whole number from 257"),
        (
            {"tokenizer": "x.json"},
            "tokenizer must be null with data.tokens=bytes.* data.tokens=bpe",
        ),
        ({"tokens": "characters", "num_classes": 0}, "num_classes must be 1 or more, or null"),
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Text(**more)  # type: ignore[arg-type]


def test_what_is_no_utf8_and_a_vocabulary_that_is_too_small_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"text.txt is not UTF-8 .*Use data.tokens=bytes"):
        _text(tmp_path, b"caf\xe9 " * 100).load()
    with pytest.raises(ConfigError, match=r"data.num_classes=9 is less than the 25 tokens"):
        _text(tmp_path, LINE * 40, num_classes=9).load()
    with pytest.raises(ConfigError, match=r"validation part has 3 characters .*length \+ 1 = 8"):
        _text(tmp_path, "abc" * 10).load()
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(EnvironmentProblem, match=r"Cannot keep tokens in .*Set data.cache"):
        Text(str(tmp_path / "text.txt"), 2, [2], tokens="characters", cache=str(blocked)).load()


def test_a_character_is_not_cut_by_pieces_files_or_shares(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.md").write_text("🎉é" * 50)
    whole = source.source(str(tmp_path / "*.md"), None)
    for size in (1, 3, 7):
        assert "".join(whole.letters(0, whole.size, size)) == "🎉é" * 100
    assert [whole.whole_letter(place) for place in range(7)] == [0, 4, 4, 4, 4, 6, 6]
    assert whole.whole_letter(whole.size) == whole.size
    limited = source.source(str(tmp_path / "*.md"), 303)
    assert "".join(limited.letters(0, limited.size)) == "🎉é" * 50, "the rest of one is left out"


# Kept tokens


def _written(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "cache" / "tokens").rglob("*") if p.is_file())


def test_tokens_are_made_once(tmp_path: Path) -> None:
    made = _text(tmp_path, LINE * 60)
    first = made.load()
    before = {p: p.stat().st_mtime_ns for p in _written(tmp_path)}
    with mock.patch.object(Characters, "of", side_effect=AssertionError("made again")):
        again = made.load()
        assert made.count_classes() == 25
    assert torch.equal(first.train.x, again.train.x) and first.codec == again.codec
    assert before == {p: p.stat().st_mtime_ns for p in _written(tmp_path)}
    assert {p.name for p in before} == {"about.json", "training.bin", "validation.bin"}


def test_another_text_and_other_settings_have_tokens_of_their_own(tmp_path: Path) -> None:
    """Also: windows of another length have the same ones."""
    made = _text(tmp_path, LINE * 60)
    made.load()
    _text(tmp_path, LINE * 60, 9).load()
    assert len(_written(tmp_path)) == 3
    _text(tmp_path, LINE * 60, validation=0.3).load()
    assert len(_written(tmp_path)) == 6
    assert (
        _text(tmp_path, LINE.upper() * 60).load().codec != _text(tmp_path, LINE * 60).load().codec
    )
    assert len(_written(tmp_path)) == 9
    _text(tmp_path, LINE * 60, tokens="bpe", vocabulary=300).load()
    _text(tmp_path, LINE * 60, tokens="bpe", vocabulary=299).load()
    assert len(_written(tmp_path)) == 15


def test_a_change_is_seen_although_the_size_is_the_same(tmp_path: Path) -> None:
    made = _text(tmp_path, "abcd" * 100)
    long_ago = time.time() - 100
    os.utime(tmp_path / "text.txt", (long_ago, long_ago))
    one = made.load()
    with mock.patch.object(source.Source, "digest", side_effect=AssertionError("read again")):
        made.load()
    other = _text(tmp_path, "abce" * 100).load()
    assert one.codec == Characters("abcd") and other.codec == Characters("abce")


def test_what_is_damaged_is_made_anew(tmp_path: Path) -> None:
    made = _text(tmp_path, LINE * 60)
    good = made.load().train.x.clone()
    for name in ("training.bin", "about.json"):
        file = next(p for p in _written(tmp_path) if p.name == name)
        file.write_bytes(file.read_bytes()[:-3])
        assert torch.equal(made.load().train.x, good)


def test_what_fails_while_it_is_made_leaves_nothing(tmp_path: Path) -> None:
    made = _text(tmp_path, LINE * 60)
    with (
        mock.patch.object(token_cache, "_write_part", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        made.load()
    assert not list((tmp_path / "cache" / "tokens").iterdir())


def _loaded(made: Text) -> list[int]:
    return made.load().train.x.flatten().tolist()


def test_runs_that_start_at_once_make_the_same(tmp_path: Path) -> None:
    made = _text(tmp_path, LINE * 3000)
    with ProcessPoolExecutor(4) as pool:
        results = list(pool.map(_loaded, [made] * 4))
    assert all(each == results[0] for each in results)
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1


# Long texts are mapped


@pytest.fixture
def mapping() -> Iterator[None]:
    """Everything counts as too long to be read."""
    with mock.patch.object(text_module, "_IN_MEMORY", 10):
        yield


def test_a_mapped_text_has_the_samples_of_one_that_is_read(tmp_path: Path) -> None:
    for name, content in (("a", LINE * 20), ("b", LINE.upper() * 20)):
        (tmp_path / f"{name}.md").write_text(content)
    for path in ("a.md", "*.md"):
        for limit in (None, 900):
            given = {"tokens": "bytes", "path": str(tmp_path / path), "bytes": limit, "test": 0.2}
            read = _text(tmp_path, "", **given).load()
            with mock.patch.object(text_module, "_IN_MEMORY", 10):
                found = _text(tmp_path, "", **given).load()
            for name in ("train", "validation", "test"):
                one, other = getattr(read, name), getattr(found, name)
                assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)


@pytest.mark.parametrize("tokens", ["bytes", "characters"])
def test_the_fingerprint_of_a_mapped_text_follows_its_content(
    tmp_path: Path, mapping: None, tokens: str
) -> None:
    def of(content: str, **more: object) -> str:
        return fingerprint(_text(tmp_path, content, tokens=tokens, **more).load())  # type: ignore[arg-type]

    whole = LINE * 60
    assert of(whole) == of(whole)
    others = [of(whole.replace("30", "31", 1)), of(whole, length=8), of(whole, validation=0.2)]
    assert len({of(whole), *others}) == 4


LIMITED = """
import sys
from pathlib import Path
def peak():
    rows = Path("/proc/self/status").read_text().splitlines()
    return {r.split(":")[0]: int(r.split()[1]) for r in rows if r.startswith(("VmHWM", "VmRSS"))}
import torch
from progtrain.data.sets import Batches
from progtrain.data.text import Text
from progtrain.start import fingerprint
before = peak()["VmRSS"]
sets = Text(sys.argv[1], 127, [127], tokens=sys.argv[2], cache=sys.argv[3]).load()
fingerprint(sets)
batches = Batches(sets, 0, torch.device("cpu"))
for step in range(20):
    x, y = batches.at(step * 32, 32)
print((peak()["VmHWM"] - before) // 1024, len(sets.train))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("tokens", "allowed"), [("bytes", 100), ("characters", 200)])
def test_a_long_text_is_not_read_into_memory(tmp_path: Path, tokens: str, allowed: int) -> None:
    """400 MB in a sparse file: MiB more than before it was opened."""
    file = tmp_path / "sparse.txt"
    with file.open("wb") as opened:
        opened.truncate(400 * 2**20)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file), tokens, str(tmp_path / "cache")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    peak, samples = map(int, done.stdout.split())
    assert samples == 400 * 2**20 * 9 // 10 // 128
    assert peak < allowed


# Runs


def _run(folder: Path, *more: str, tokens: str = "characters") -> tuple[str, ...]:
    """A run of a decoder on the embedded text."""
    return (
        *(
            "model=gpt",
            "model.width=16",
            "model.depth=2",
            "model.heads=2",
            "train.duration=12steps",
        ),
        *("data=text", "data.bytes=6000", "data.length=8", f"data.tokens={tokens}"),
        *("data.vocabulary=300", f"data.cache={folder / 'cache'}", "train.evaluate_every=5steps"),
        *more,
    )


@pytest.mark.parametrize("tokens", ["characters", "bpe"])
def test_a_model_has_as_many_classes_as_there_are_tokens(tmp_path: Path, tokens: str) -> None:
    made = parts(*_run(tmp_path, tokens=tokens))
    size = made.data.load().codec.size  # type: ignore[union-attr]
    assert made.config["data"]["num_classes"] == made.config["model"]["num_classes"] == size
    model = made.model_factory({})
    assert model.head.out_features == size and (size == 300) == (tokens == "bpe")  # type: ignore[union-attr]
    larger = parts(*_run(tmp_path, "data.num_classes=400", tokens=tokens))
    assert larger.model_factory({}).head.out_features == 400  # type: ignore[union-attr]


@pytest.mark.parametrize("tokens", ["characters", "bpe"])
def test_a_decoder_grows_in_depth_and_width_and_resumes_in_the_same_bits(
    tmp_path: Path, tokens: str
) -> None:
    """Also: while its sequences become longer."""
    more = ("growth=schedule", "curriculum=sequence_length", "curriculum.length=8steps")
    made = parts(*_run(tmp_path, *more, "checkpoint.every=1steps", tokens=tokens))
    whole = train(made, tmp_path / "whole", Spy())
    assert [event.stage for event in whole.run.events] == ["deeper", "wider"]
    assert {row["view"][2] for row in whole.spy.rows} == {2, None}
    for step in (2, 4, 8):
        place = tmp_path / f"stopped_{step}"

        def stop() -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            train(made, place, at_step(step, stop))
        assert not differences(whole, resume(made, place))


def test_scores_work_on_tokens(tmp_path: Path) -> None:
    for score in ("compression", "length curriculum.score.padding=1"):
        easy = ("curriculum=difficulty", *f"curriculum/score={score}".split())
        run = train(parts(*_run(tmp_path, "growth=none", *easy)), tmp_path / score[:5]).run
        assert run.order is not None and sorted(run.order.tolist()) == list(range(len(run.order)))


def test_data_that_have_changed_are_refused_with_what_has_changed(tmp_path: Path) -> None:
    """Also: before a network is built for another vocabulary."""
    file = tmp_path / "text.txt"
    file.write_text(LINE * 60)
    base = _run(tmp_path, "growth=none", f"data.path={file}", "checkpoint.every=6steps")
    train(parts(*base), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"data.bytes was 6000 and is 1000"):
        resume(parts(*base, "data.bytes=1000"), tmp_path / "run")
    file.write_text(LINE.upper() * 59 + LINE)
    with pytest.raises(CheckpointError, match=r"data.num_classes was 25 and is 2\d"):
        resume(parts(*base, "train.recovery=0.9"), tmp_path / "run")
    file.write_text(LINE * 59 + LINE[::-1])
    with pytest.raises(CheckpointError, match="no setting of data has changed, so what they are"):
        resume(parts(*base, "data.bytes=6000"), tmp_path / "run")


def test_windows_of_a_vocabulary_in_two_bytes_are_indexed_like_bytes() -> None:
    tokens = torch.arange(3000, dtype=torch.int32).to(torch.uint16)
    split = windows(tokens, 9)
    assert split.x[torch.tensor([2, 0])].long().tolist() == [[*range(20, 29)], [*range(9)]]
