"""Codecs: text to tokens and back, what each token costs in bytes, and as plain data."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from progtrain.checkpoint.document import decode_document, encode_document
from progtrain.data import codec_bpe
from progtrain.data.codec import Codec, from_json
from progtrain.data.codec_bpe import BPE, lines_of
from progtrain.data.codec_bytes import Bytes
from progtrain.data.codec_characters import Characters
from progtrain.errors import CheckpointError, ConfigError, EnvironmentProblem

TEXT = "To be, or not to be.\n\tThat is the question – ‘être’ 🎉\r\n" * 40


def _bpe(size: int = 300) -> BPE:
    pytest.importorskip("tokenizers")
    return BPE.trained([TEXT], size)


CODECS = {
    "bytes": Bytes,
    "characters": lambda: Characters.of([TEXT]),
    "unknown": lambda: Characters(Characters.of([TEXT]).vocabulary, unknown=True),
    "bpe": _bpe,
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]()


def test_a_text_comes_back_from_its_tokens(codec: Codec) -> None:
    tokens = codec.encode(TEXT)
    assert codec.decode(tokens) == TEXT
    assert 0 <= min(tokens) <= max(tokens) < codec.size
    assert codec.encode("") == [] and codec.decode([]) == ""


def test_bytes_of_tokens_add_up_to_those_of_the_text(codec: Codec) -> None:
    each = codec.token_bytes()
    assert len(each) == codec.size
    assert each[codec.encode(TEXT)].sum() == len(TEXT.encode())


def test_pieces_have_the_tokens_of_the_whole(codec: Codec) -> None:
    """Also: in the smallest type that holds them. Pairs may differ where a part ends."""
    pieces = [TEXT[i : i + 50] for i in range(0, len(TEXT), 50)]
    arrays = list(codec.encoded(pieces))
    tokens = np.concatenate(arrays).tolist()
    assert tokens == codec.encode(TEXT) or isinstance(codec, BPE)
    assert codec.decode(tokens) == TEXT
    assert {a.dtype for a in arrays} == {np.dtype("u1" if codec.size <= 256 else "u2")}


def test_a_codec_survives_a_checkpoint(codec: Codec) -> None:
    stored = decode_document(encode_document(codec.to_json()))
    again = from_json(stored)
    assert again == codec and again.encode(TEXT) == codec.encode(TEXT)


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"kind": "words"},
        {"kind": "bpe"},
        {"kind": "characters", "vocabulary": 3, "unknown": False},
    ],
)
def test_what_is_no_codec_is_refused(document: object) -> None:
    with pytest.raises(CheckpointError, match="bytes, characters or bpe"):
        from_json(document)  # type: ignore[arg-type]


def test_characters_are_sorted_and_the_unknown_one_is_last() -> None:
    known = Characters.of(["bab", "éa🎉"])
    assert known.vocabulary == "abé🎉" and known.encode("🎉a") == [3, 0]
    with pytest.raises(ConfigError, match=r"'c' \(U\+0063\) is none of the 4"):
        known.encode("abc")
    unknown = Characters(known.vocabulary, unknown=True)
    assert unknown.size == 5 and unknown.encode("acb") == [0, 4, 1]
    assert unknown.decode([0, 4, 1]) == "a\ufffdb"


def test_bytes_that_are_no_text_show_as_such() -> None:
    assert Bytes().decode([0xC3, 0xA9, 0xC3, 65, 300]) == "é\ufffdA\ufffd"


def test_pairs_are_joined_up_to_the_vocabulary_and_the_same_every_time() -> None:
    small, large, all_ = _bpe(270), _bpe(290), _bpe(9999)
    assert (small.size, large.size) == (270, 290)
    assert 290 < all_.size < 400, "no more pairs than the text has"
    assert len(large.encode(TEXT)) < len(small.encode(TEXT)) < len(TEXT.encode())
    assert _bpe(290) == large
    assert large.decode(large.encode("neu: ß\u4e16")) == "neu: ß\u4e16", "every byte is known"


def test_a_stored_tokenizer_is_read_and_a_bad_one_refused(tmp_path: Path) -> None:
    made = _bpe()
    file = tmp_path / "tokenizer.json"
    file.write_text(made.tokenizer, encoding="utf-8")
    assert BPE.loaded(str(file)) == made
    file.write_text(json.dumps({"model": 3}))
    with pytest.raises(ConfigError, match=r"data.tokenizer=.* is no tokenizer.json"):
        BPE.loaded(str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"data.tokenizer: cannot read .*it is no text"):
        BPE.loaded(str(file))
    with pytest.raises(ConfigError, match=r"data.tokenizer: cannot read .*No such file"):
        BPE.loaded(str(tmp_path / "none.json"))


def test_parts_for_the_library_end_behind_lines_and_leave_nothing_out() -> None:
    pieces = ["one\ntw", "o\nthree" * 5, "", "x" * 50, "\nend"]
    for size in (1, 4, 20, 1000):
        parts = list(lines_of(pieces, size))
        assert "".join(parts) == "".join(pieces) and "" not in parts
        assert max(map(len, parts)) < 2 * size + 50
    assert list(lines_of(["a\nb"], 3)) == ["a\n", "b"]


def test_without_the_library_there_is_one_message() -> None:
    with (
        mock.patch.object(codec_bpe, "import_module", side_effect=ImportError),
        pytest.raises(EnvironmentProblem, match=r"pip install 'progtrain\[bpe\]'"),
    ):
        BPE.trained(["text"], 300)
