"""What training minimises: the formulas, what is refused, and that evaluation stays plain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_kit import parts, train
from torch.nn import functional as F

from progtrain.data.sets import Normalise, Sets, Split
from progtrain.errors import ConfigError, SettingError
from progtrain.losses.cross_entropy import CrossEntropy
from progtrain.losses.function import Function, focal
from progtrain.objective import measured, plain, sample_losses

CPU = torch.device("cpu")
CNN = ("model=cnn", "model.width=4", "data.shape=[1,6,6]")


def labelled(*labels: int) -> Sets:
    split = Split(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels))
    return Sets(split, split, None, Normalise(1.0, (0.0,), (1.0,)))


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([0, 1, 2, 2, 1, 0, 0, 0, 1])


def test_the_default_is_the_plain_one_itself() -> None:
    assert CrossEntropy().criterion(labelled(0, 1), 2, CPU) is plain


def test_smoothing_is_that_of_the_equation() -> None:
    logits, y = logits_and_labels()
    p = 0.8 * F.one_hot(y, 3) + 0.2 / 3
    want = -(p * logits.log_softmax(1)).sum(1)
    criterion = CrossEntropy(0.2).criterion(labelled(0, 1, 2), 3, CPU)
    torch.testing.assert_close(criterion(logits, y, "none"), want)
    torch.testing.assert_close(criterion(logits, y, "mean"), want.mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_count_alike_for_whole_and_for_mixed_labels(smoothing: float) -> None:
    logits, y = logits_and_labels()
    criterion = CrossEntropy(smoothing, [1.0, 2.0, 5.0]).criterion(labelled(0), 3, CPU)
    soft = F.one_hot(y, 3).double()
    for reduction in ("mean", "none", "sum"):
        torch.testing.assert_close(
            criterion(logits, y, reduction), criterion(logits, soft, reduction)
        )
    w = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    p = (1 - smoothing) * soft + smoothing / 3
    want = -(w * p * logits.log_softmax(1)).sum() / w[y].sum()
    torch.testing.assert_close(criterion(logits, y, "mean"), want)


def test_balanced_weights_give_every_class_the_same_weight_in_all() -> None:
    labels = (0, 0, 0, 0, 0, 0, 1, 1, 2)
    criterion = CrossEntropy(class_weights="balanced").criterion(labelled(*labels), 3, CPU)
    y, logits = torch.tensor(labels), torch.randn(9, 3)
    each = criterion(logits, y, "none") / plain(logits, y, "none")
    sums = [float(each[y == k].sum()) for k in range(3)]
    assert sums == pytest.approx([3.0, 3.0, 3.0])


def test_probabilities_over_fewer_classes_than_a_head_has_are_0_for_the_rest() -> None:
    logits, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 0])
    soft = F.one_hot(y, 3).float()
    torch.testing.assert_close(measured(plain, logits, soft), plain(logits, y, "mean"))
    weighted = CrossEntropy(class_weights=[1.0, 2.0, 3.0]).criterion(labelled(0), 3, CPU)
    torch.testing.assert_close(measured(weighted, logits, soft), measured(weighted, logits, y))


def test_losses_of_samples_go_through_it() -> None:
    logits, y = logits_and_labels()
    criterion = CrossEntropy(class_weights=[1.0, 2.0, 5.0]).criterion(labelled(0), 3, CPU)
    w = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    want = w[y] * plain(logits, y, "none")
    torch.testing.assert_close(sample_losses(logits, y, criterion), want)


def test_positions_are_targets_of_their_own() -> None:
    logits_BTV, y_BT = torch.randn(2, 3, 4), torch.randint(4, (2, 3))
    criterion = CrossEntropy(0.1).criterion(labelled(0), 4, CPU)
    want = F.cross_entropy(logits_BTV.flatten(0, 1), y_BT.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(measured(criterion, logits_BTV, y_BT), want)


def test_focal_is_plain_at_gamma_0_and_counts_what_is_known_less() -> None:
    logits, y = logits_and_labels()
    logits = logits.float()
    torch.testing.assert_close(focal(logits, y, 0.0), plain(logits, y, "none"))
    q = logits.softmax(1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(focal(logits, y, 2.0), (1 - q) ** 2 * plain(logits, y, "none"))
    soft = F.one_hot(y, 3).float()
    torch.testing.assert_close(focal(logits, soft, 2.0), focal(logits, y, 2.0))


def test_a_function_must_give_one_number_a_target() -> None:
    criterion = Function(lambda logits, y: logits.mean()).criterion(labelled(0), 3, CPU)
    with pytest.raises(ConfigError, match=r"one number a target \(9,\), got \(\)"):
        criterion(*logits_and_labels(), "mean")


@pytest.mark.parametrize("weights", ["equal", [0.0, 0.0], [1.0, -1.0], [float("nan")], []])
def test_weights_that_cannot_be_are_refused(weights: object) -> None:
    with pytest.raises(SettingError, match="class_weights must be balanced, a list"):
        CrossEntropy(class_weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_0_and_1_is_refused(smoothing: float) -> None:
    with pytest.raises(SettingError, match="label_smoothing must be"):
        CrossEntropy(smoothing)


def test_weights_of_another_length_name_the_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 2 numbers, and the data have 4 classes"):
        train(parts(*CNN, "loss.class_weights=[1,2]"), tmp_path, store=False)


def test_a_class_without_samples_cannot_be_balanced() -> None:
    with pytest.raises(ConfigError, match=r"1 of the 3 classes have no training sample \(1\)"):
        CrossEntropy(class_weights="balanced").criterion(labelled(0, 2), 3, CPU)


def test_val_loss_stays_plain_and_train_loss_does_not(tmp_path: Path) -> None:
    still = ("train.duration=1steps", "optimizer.lr=1e-30")
    one = train(parts(*CNN, *still), tmp_path / "one", store=False)
    other = train(parts(*CNN, *still, "loss.label_smoothing=0.5"), tmp_path / "o", store=False)
    assert one.run.history[-1].metrics["val/loss"] == other.run.history[-1].metrics["val/loss"]
    assert one.spy.losses != other.spy.losses


def test_all_heads_minimise_it(tmp_path: Path) -> None:
    stage = "{_target_: progtrain.growth.schedule.At, at: 75%, operator: ${head}}"
    grown = ("growth=schedule", "head=second", f"+growth.stages.head={stage}", "train.heads=all")
    losses = [
        train(parts(*CNN, *grown, f"loss.label_smoothing={s}"), tmp_path / str(s), store=False)
        for s in (0, 0.3)
    ]
    assert losses[0].spy.losses[-1] != losses[1].spy.losses[-1]
