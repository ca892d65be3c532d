"""Which samples are easy: every score ranks the training samples as it says."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from run_kit import Finished, parts, train

from progtrain.curriculum.scores.column import Column
from progtrain.curriculum.scores.compression import Compression
from progtrain.curriculum.scores.function import spread
from progtrain.curriculum.scores.loss import Loss
from progtrain.errors import ConfigError

TEXT = ("model=gpt", "data=text", "data.length=32", "data.bytes=4000")  # 109 windows
FIRST = ("curriculum=difficulty", "train.duration=2steps")
SAMPLES, WHOLE = 49, 65  # to train on; with those of validation


def ranked(directory: Path, *overrides: str) -> Finished:
    return train(parts(*FIRST, *overrides), directory, store=False)


def order(finished: Finished) -> list[int]:
    assert finished.run.order is not None
    return finished.run.order.tolist()


def sorted_by(scores: torch.Tensor) -> list[int]:
    return torch.argsort(scores, stable=True).tolist()


def test_length_counts_what_is_no_padding(tmp_path: Path) -> None:
    made = parts(*FIRST, *TEXT, "curriculum/score=length", "curriculum.score.padding=32")
    x = made.data.load().train.x
    lengths = torch.tensor([sum(token != 32 for token in row) for row in x.tolist()])
    assert order(train(made, tmp_path, store=False)) == sorted_by(lengths)


def test_compression_sorts_by_compressed_size(tmp_path: Path) -> None:
    made = parts(*FIRST, *TEXT, "curriculum/score=compression")
    x = made.data.load().train.x
    sizes = torch.tensor([len(zlib.compress(bytes(row), 9)) for row in x.tolist()])
    assert len(set(sizes.tolist())) > 3
    assert order(train(made, tmp_path, store=False)) == sorted_by(sizes)


def test_a_function_gets_raw_samples_and_targets(tmp_path: Path) -> None:
    made = parts(*FIRST, "curriculum/score=function")
    x = made.data.load().train.x
    contrast = torch.tensor([float(np.std(sample.double().numpy(), ddof=1)) for sample in x])
    assert order(train(made, tmp_path, store=False)) == sorted_by(-contrast)
    assert torch.allclose(spread(x, x, 2.0).float(), 2 * contrast)


@pytest.mark.parametrize("kind", ["npy", "txt"])
@pytest.mark.parametrize("count", [SAMPLES, WHOLE])
def test_a_file_scores_training_samples_or_the_whole_data_set(
    kind: str, count: int, tmp_path: Path
) -> None:
    scores = np.random.default_rng(0).random(count)
    file = tmp_path / f"scores.{kind}"
    np.save(file, scores) if kind == "npy" else np.savetxt(file, scores)
    score = ("curriculum/score=column", f"curriculum.score.file={file}")
    finished = ranked(tmp_path / "run", *score)
    source = parts().data.load().train.source
    assert source is not None and sorted(source.tolist())[-1] > SAMPLES
    mine = torch.tensor(scores if count == SAMPLES else scores[source.numpy()])
    assert order(finished) == sorted_by(mine)


def test_a_column_of_the_data_set_is_found_by_name(tmp_path: Path) -> None:
    name = ("curriculum/score=column", "curriculum.score.name=closeness")
    sets = parts().data.load()
    assert order(ranked(tmp_path, *name)) == sorted_by(sets.columns["closeness"])
    # the label of an easy sample is clear: a linear teacher's margin is wide
    assert sets.columns["closeness"].max() <= 0 and len(sets.columns["closeness"]) == SAMPLES


def test_losses_are_those_of_the_start_network_after_its_first_steps(tmp_path: Path) -> None:
    """The reference pass is the beginning of the same run without a curriculum."""
    plain = train(parts("train.duration=24steps"), tmp_path / "plain", store=False)
    assert plain.run.clock.step == 24
    steps = ("curriculum/score=loss", "curriculum.score.steps=24", "train.duration=24steps")
    finished = ranked(tmp_path / "easy", *steps)
    train_set = parts().data.load().train
    model = plain.run.model.eval()
    with torch.no_grad():
        logits = model(train_set.x)
    losses = torch.nn.functional.cross_entropy(logits, train_set.y, reduction="none")
    assert order(finished) == sorted_by(losses)


def test_a_reference_pass_is_paid_for_and_changes_nothing_else(tmp_path: Path) -> None:
    paid = train(parts(*FIRST, "curriculum.score.steps=5"), tmp_path / "paid", store=False)
    free = train(parts("train.duration=2steps"), tmp_path / "free", store=False)
    forward = (paid.run.clock.now.flops - free.run.clock.now.flops) - 5 * 8 * free.run.flops
    assert 0.3 * SAMPLES * free.run.flops < forward < 0.6 * SAMPLES * free.run.flops
    assert paid.run.clock.now.samples == free.run.clock.now.samples == 16
    assert paid.spy.digest["rng/torch"] == free.spy.digest["rng/torch"]


def test_dropout_in_a_reference_pass_is_seeded_and_leaves_the_runs_numbers(tmp_path: Path) -> None:
    dropout = ("model=cnn", "model.width=4", "model.dropout=0.5", "curriculum.score.steps=5")
    runs = []
    for name in ("one", "other"):
        torch.manual_seed(random.randrange(10**6))
        runs.append(ranked(tmp_path / name, *dropout))
    assert order(runs[0]) == order(runs[1])
    plain = train(parts("train.duration=2steps", *dropout[:3]), tmp_path / "plain", store=False)
    assert runs[0].spy.digest["rng/torch"] == plain.spy.digest["rng/torch"]


def test_a_sequences_loss_is_the_mean_over_its_targets(tmp_path: Path) -> None:
    made = parts(*FIRST, *TEXT, "curriculum.score.steps=0")
    finished = train(made, tmp_path, store=False)
    torch.manual_seed(0)
    model, train_set = made.model_factory({}).eval(), made.data.load().train
    with torch.no_grad():
        logits = model(train_set.x.long())
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), train_set.y.long(), reduction="none"
    ).mean(1)
    assert order(finished)[:10] == sorted_by(losses)[:10]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("curriculum/score=length",), "counts tokens, and samples of this data set are 1×4×4"),
        (("curriculum/score=length", *TEXT), "all 109 training samples have 32 tokens.*padding=0"),
        (("curriculum/score=column", "curriculum.score.name=closenes"), "mean 'closeness'"),
        (("curriculum/score=column", "curriculum.score.name=x", *TEXT), "no such column.*none"),
        (("curriculum/score=column", "curriculum.score.file=none.npy"), "none.npy.*cannot be read"),
    ],
    ids=str,
)
def test_a_score_that_cannot_be_is_refused_before_the_first_step(
    overrides: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        ranked(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([1.0] * SAMPLES, "every training sample the same 1"),
        ([float("nan"), *[1.0] * (SAMPLES - 1)], "got 1 that are not .training sample 0: nan"),
        ([1.0, 2.0], "has 2 numbers; it must have 49 .*or 65"),
    ],
)
def test_numbers_that_rank_nothing_are_refused(
    numbers: list[float], told: str, tmp_path: Path
) -> None:
    np.savetxt(tmp_path / "scores.txt", numbers)
    file = f"curriculum.score.file={tmp_path / 'scores.txt'}"
    with pytest.raises(ConfigError, match=told):
        ranked(tmp_path / "run", "curriculum/score=column", file)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Column(), "one of the two"),
        (lambda: Column("a.npy", "b"), "one of the two"),
        (lambda: Compression(0), "level"),
        (lambda: Loss(-1), "steps"),
    ],
)
def test_a_score_refuses_settings_that_cannot_be(make: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()  # type: ignore[operator]
