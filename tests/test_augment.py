"""Augmentation and mixing: what they do to images, and that place in the stream decides on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from run_kit import branch, differences, parts, resume, train
from torch import Tensor
from torch.nn import functional as F

from progtrain import steps
from progtrain.augment.cutout import Cutout
from progtrain.augment.standard import Standard
from progtrain.data.draws import Draws, seeded
from progtrain.data.sets import Batches
from progtrain.errors import ConfigError, SettingError
from progtrain.mix.cutmix import Cutmix
from progtrain.mix.mixup import Mixup
from progtrain.settings import Checkpoints

CNN = ("model=cnn", "model.width=4", "model.depth=1", "data.shape=[1,6,6]")
VARIED = (
    *CNN,
    "model.dropout=0.2",
    "augment=[standard,cutout]",
    "augment.standard.padding=2",
    "augment.cutout.size=2",
    "mix=mixup",
    "loss.label_smoothing=0.1",
)


def images(count: int = 16, side: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (count, 3, side, side + 2), generator=generator, dtype=torch.uint8)


def test_draws_are_those_of_a_place_however_the_batch_is_cut() -> None:
    whole = Draws(5, 100, 12).uniform(3)
    parts_ = [Draws(5, 100, 5).uniform(3), Draws(5, 105, 7).uniform(3)]
    assert torch.equal(whole, torch.cat(parts_))
    assert not torch.equal(whole, Draws(6, 100, 12).uniform(3))
    assert not torch.equal(whole, Draws(5, 100, 12).named("cutout").uniform(3))


def test_draws_are_uniform_and_independent() -> None:
    u = Draws(0, 0, 40_000).uniform(3)
    assert float(u.min()) >= 0 and float(u.max()) < 1
    counts = torch.histc(u.float(), 10, 0, 1)
    assert float((counts / 12_000 - 1).abs().max()) < 0.03
    rows = torch.cat([u, u.roll(1, 0)], 1).T
    assert float((torch.corrcoef(rows) - torch.eye(6)).abs().max()) < 0.02


def test_seeded_numbers_leave_the_others_alone() -> None:
    torch.manual_seed(1)
    torch.rand(3)
    before = torch.get_rng_state()
    with seeded(7):
        one = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(7):
        assert torch.equal(torch.rand(4), one)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_standard_is_a_crop_of_the_reflected_image_mirrored_or_not(kind: torch.dtype) -> None:
    x, padding = images().to(kind), 3
    out = Standard(padding, 0.5)(x, Draws(1, 0, len(x)))
    assert out.dtype is kind and out.shape == x.shape
    wide = F.pad(x.float(), (padding,) * 4, mode="reflect")
    height, width = x.shape[-2:]
    found: list[tuple[int, int, bool]] = []
    for sample, got in zip(wide, out.float(), strict=True):
        at = [
            (i, j, mirrored)
            for i in range(2 * padding + 1)
            for j in range(2 * padding + 1)
            for mirrored in (False, True)
            if torch.equal(_crop(sample, i, j, height, width, mirrored), got)
        ]
        assert len(at) == 1
        found += at
    assert {f[2] for f in found} == {True, False}
    assert len({f[:2] for f in found}) > 8, "every sample has a shift of its own"


def _crop(image: Tensor, i: int, j: int, height: int, width: int, mirrored: bool) -> Tensor:
    cut = image[:, i : i + height, j : j + width]
    return cut.flip(2) if mirrored else cut


def test_shifts_and_mirrors_are_as_frequent_as_declared() -> None:
    x = torch.arange(9.0).expand(9, 9).expand(6000, 1, 9, 9)
    out = Standard(1, 0.25)(x, Draws(0, 0, 6000))[:, 0, 4]
    mirrored = out[:, 3] > out[:, 5]
    assert float(mirrored.float().mean()) == pytest.approx(0.25, abs=0.02)
    for shift in (-1, 0, 1):
        share = float((out[~mirrored][:, 4] == 4 + shift).float().mean())
        assert share == pytest.approx(1 / 3, abs=0.03)


def test_neither_padding_nor_flip_is_the_image_itself() -> None:
    x = images()
    assert torch.equal(Standard(0, 0.0)(x, Draws(1, 0, 16)), x)
    assert torch.equal(Standard(0, 1.0)(x, Draws(1, 0, 16)), x.flip(3))


def test_cutout_blanks_one_square_whose_centre_is_any_pixel() -> None:
    out = Cutout(3)(torch.ones(4000, 2, 8, 9), Draws(2, 0, 4000))
    assert torch.equal(out[:, 0], out[:, 1])
    blank = out[:, 0] == 0
    areas = {int(area) for area in blank.sum((1, 2))}
    assert areas == {4, 6, 9}, "2 by 2 in a corner, 2 by 3 at an edge, else whole"
    whole = float((blank.sum((1, 2)) == 9).float().mean())
    assert whole == pytest.approx((6 / 8) * (7 / 9), abs=0.03)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (("augment=standard",), r"augment\.standard\.padding=5 or less"),
        (("augment=cutout", "augment.cutout.size=12"), r"Use augment\.cutout\.size=1"),
        (
            ("augment=standard", *("model=gpt", "data=text", "data.length=8")),
            "augment=standard needs",
        ),
        (("augment=cutout", *("model=gpt", "data=text", "data.length=8")), "Use augment=none"),
        (("mix=mixup", *("model=gpt", "data=text", "data.length=8")), "Use mix=none"),
    ],
)
def test_what_cannot_be_varied_is_refused_with_what_can(
    overrides: tuple[str, ...], match: str, tmp_path: Path
) -> None:
    small = () if "data=text" in overrides else ("augment.standard.padding=6",)
    small = small if "augment=standard" in overrides else ()
    with pytest.raises(ConfigError, match=match):
        train(parts(*CNN[:-1], *overrides, *small, *_shape(overrides)), tmp_path, store=False)


def _shape(overrides: tuple[str, ...]) -> tuple[str, ...]:
    return ("data.bytes=2000",) if "data=text" in overrides else (CNN[-1],)


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        (Standard, {"padding": -1}, "padding must be"),
        (Standard, {"flip": 1.5}, "flip must be a probability"),
        (Cutout, {"size": 0}, "size must be"),
        (Mixup, {"alpha": 0}, "alpha must be"),
        (Cutmix, {"share": 0}, "share must be"),
    ],
)
def test_values_that_cannot_be_are_refused(kind: type, settings: object, match: str) -> None:
    with pytest.raises(SettingError, match=match):
        kind(**settings)  # type: ignore[arg-type]


def test_mixup_blends_images_and_labels_in_one_share() -> None:
    x, y = torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    mixed, p_BK = Mixup(1.0)(x, y, 4, Draws(3, 0, 6))
    share = float(p_BK[0, 0])
    assert 0.02 < share < 0.98
    onehot = F.one_hot(y, 4).float()
    torch.testing.assert_close(p_BK, share * onehot + (1 - share) * onehot.roll(1, 0))
    torch.testing.assert_close(mixed, share * x + (1 - share) * x.roll(1, 0))


def test_cutmix_pastes_a_rectangle_with_its_share_of_the_label() -> None:
    x = torch.arange(1.0, 7).view(6, 1, 1, 1).expand(6, 1, 8, 8)
    y = torch.arange(6)
    seen: set[float] = set()
    for position in range(0, 60, 6):
        mixed, p_BK = Cutmix(1.0)(x, y, 6, Draws(0, position, 6))
        own = (mixed == x).float().mean((1, 2, 3))
        torch.testing.assert_close(p_BK[y, y], own)
        assert bool(((mixed == x) | (mixed == x.roll(1, 0))).all())
        seen.add(round(float(own[0]), 3))
    assert len(seen) > 5


def test_a_share_of_the_batches_stays_as_it_is() -> None:
    x, y = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 3])
    whole = [Mixup(1.0, 0.3)(x, y, 4, Draws(0, 4 * i, 4))[1].ndim == 1 for i in range(500)]
    assert sum(whole) / 500 == pytest.approx(0.7, abs=0.07)


def test_evaluation_and_probes_see_images_as_they_are(tmp_path: Path) -> None:
    """A network that cannot learn has the figures and the probe that it has unvaried."""
    still = ("model=mlp", "model.norm=none", "train.duration=1steps", "optimizer.lr=1e-30")
    varied = (*VARIED[5:], CNN[-1], *still)
    one = train(parts(CNN[-1], *still), tmp_path / "plain", store=False)
    other = train(parts(*varied, "augment=[standard,cutout]"), tmp_path / "varied", store=False)
    assert torch.equal(one.run.probe.x, other.run.probe.x)
    for name in ("val/loss", "val/accuracy"):
        assert one.run.history[0].metrics[name] == other.run.history[0].metrics[name]
    assert one.spy.losses != other.spy.losses


def test_every_forward_pass_of_an_accumulated_step_is_varied_on_its_own(tmp_path: Path) -> None:
    """Two passes of 4 see the images of one pass of 8."""
    seen: dict[str, list[Tensor]] = {"whole": [], "halves": []}
    batch = steps.training_batch

    for name, more in (("whole", ()), ("halves", ("train.batch_size=4", "train.accumulate=2"))):

        def look(*args: object, kept: list[Tensor] = seen[name]) -> tuple[Tensor, Tensor]:
            x, y = batch(*args)  # type: ignore[arg-type]
            kept.append(x)
            return x, y

        with mock.patch.object(steps, "training_batch", look):
            made = parts(*VARIED, "mix=none", "train.duration=6steps", *more)
            train(made, tmp_path / name, store=False)
    assert torch.equal(torch.cat(seen["whole"]), torch.cat(seen["halves"]))


def test_one_sample_is_another_image_in_every_epoch() -> None:
    made = parts(*CNN, "augment=standard", "augment.standard.padding=2")
    batches = Batches(made.data.load(), 0, torch.device("cpu"))
    index = torch.tensor([3, 4])
    first = batches.taken(index, Draws(0, 0, 2), made.augments)[0]
    again = batches.taken(index, Draws(0, 0, 2), made.augments)[0]
    later = batches.taken(index, Draws(0, 49, 2), made.augments)[0]
    assert torch.equal(first, again) and not torch.equal(first, later)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize("more", [(), ("curriculum=image_size", "curriculum.multiple=1"),
                                  ("growth=schedule", "transfer=distill")], ids=str)  # fmt: skip
def test_a_resumed_run_sees_the_images_that_it_would_have_seen(
    mix: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    made = parts(*VARIED, f"mix={mix}", *more)
    every = replace(made, checkpoint=Checkpoints("1steps", 1000))
    whole = train(every, tmp_path / "whole")
    for step in (5, 17):
        resumed = resume(made, branch(whole.directory, step, tmp_path / str(step)))
        assert not differences(whole, resumed)


def test_the_student_and_its_teacher_see_one_batch(tmp_path: Path) -> None:
    """Teachers are asked with the very tensor that the network has seen."""
    seen: list[Tensor] = []
    answer, batch, given = steps.answer, steps.training_batch, []

    def look(*args: object) -> tuple[Tensor, Tensor]:
        given.append(batch(*args))  # type: ignore[arg-type]
        return given[-1]

    def ask(teacher: object, x: Tensor) -> Tensor:
        seen.append(x)
        assert x is given[-1][0]
        return answer(teacher, x)  # type: ignore[arg-type]

    with mock.patch.object(steps, "answer", ask), mock.patch.object(steps, "training_batch", look):
        train(parts(*VARIED, "growth=schedule", "transfer=distill"), tmp_path, store=False)
    assert seen


def test_mixed_labels_train_a_head_that_has_more_outputs(tmp_path: Path) -> None:
    grown = (
        "+growth.stages.head={_target_: progtrain.growth.schedule.At, at: 75%, operator: ${head}}"
    )
    made = parts(*VARIED, "growth=schedule", grown, "loss.class_weights=balanced")
    finished = train(made, tmp_path, store=False)
    assert any(event.stage == "head" for event in finished.run.events)
    assert all(torch.isfinite(torch.tensor(finished.spy.losses)))
