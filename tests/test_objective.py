"""What is minimised and counted: one target a sample or one a position, in one place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from run_kit import parts, train
from torch.nn import functional as F

from progtrain.data.sets import Split
from progtrain.evaluation import evaluation_batch
from progtrain.flops import training_flops
from progtrain.models.gpt import GPT
from progtrain.objective import correct, cross_entropy

TEXT = ("model=gpt", "data=text", "data.length=8", "data.bytes=3000", "growth=none")


def test_one_target_a_sample_has_the_bits_it_always_had() -> None:
    logits_BK, y_B = torch.randn(7, 5), torch.randint(5, (7,))
    for reduction in ("mean", "sum"):
        want = F.cross_entropy(logits_BK, y_B, reduction=reduction)
        assert torch.equal(cross_entropy(logits_BK, y_B, reduction), want)
    assert int(correct(logits_BK, y_B)) == int((logits_BK.argmax(1) == y_B).sum())


def test_one_target_a_position_is_every_position_on_its_own() -> None:
    logits_BTV, y_BT = torch.randn(3, 5, 5), torch.randint(5, (3, 5))
    each = [F.cross_entropy(logits_BTV[b, t], y_BT[b, t]) for b in range(3) for t in range(5)]
    right = sum(int(logits_BTV[b, t].argmax() == y_BT[b, t]) for b in range(3) for t in range(5))
    torch.testing.assert_close(cross_entropy(logits_BTV, y_BT), torch.stack(each).mean())
    torch.testing.assert_close(cross_entropy(logits_BTV, y_BT, "sum"), torch.stack(each).sum())
    assert int(correct(logits_BTV, y_BT)) == right


def test_metrics_of_text_are_means_over_bytes(tmp_path: Path) -> None:
    made = parts(*TEXT, "train.duration=40steps")
    ended = train(made, tmp_path, store=False)
    split = made.data.load().validation
    with torch.no_grad():
        logits_NTV = ended.run.model.eval()(split.x.long())
    metrics, y_NT = ended.run.history[-1].metrics, split.y.long()
    want = F.cross_entropy(logits_NTV.flatten(0, 1), y_NT.flatten())
    assert metrics["val/loss"] == pytest.approx(float(want), rel=1e-5)
    assert metrics["val/accuracy"] == float((logits_NTV.argmax(2) == y_NT).double().mean())
    assert 0.05 < metrics["val/accuracy"] < 1, "chance is 0.004"


def test_a_network_of_tokens_starts_at_chance_and_learns(tmp_path: Path) -> None:
    losses = train(parts(*TEXT, "train.duration=40steps"), tmp_path, store=False).spy.losses
    assert losses[0] == pytest.approx(torch.tensor(256.0).log().item(), abs=0.2)
    assert sum(losses[-5:]) / 5 < losses[0] - 1


@pytest.mark.parametrize(
    ("sample", "targets", "classes", "want"),
    [
        ((1, 8, 8), (), 10, 1024),
        ((3, 32, 32), (), 1000, 1024),
        ((3, 224, 224), (), 1000, 27),
        ((128,), (128,), 256, 512),
        ((8192,), (8192,), 50_000, 1),
    ],
)
def test_evaluation_batches_shrink_where_samples_are_large(
    sample: tuple[int, ...], targets: tuple[int, ...], classes: int, want: int
) -> None:
    x, y = torch.zeros(1, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)
    split = Split(x.expand(2000, *sample), y.expand(2000, *targets))
    assert evaluation_batch(split, classes) == want


def test_flops_of_a_decoder_are_those_of_its_matrix_products() -> None:
    """6 a weight and position (forward, two backward), 12 T² W a block for attention."""
    length, width, depth = 16, 8, 2
    model = GPT((length,), 256, width=width, depth=depth, heads=2)
    weights = sum(p.numel() for n, p in model.named_parameters() if "embedding" not in n)
    weights -= sum(p.numel() for n, p in model.named_parameters() if "norm" in n)
    want = 6 * weights * length + depth * 12 * length**2 * width
    assert training_flops(model, torch.zeros(4, length, dtype=torch.long)) == want
