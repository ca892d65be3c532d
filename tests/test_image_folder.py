"""data=image_folder: what is read, which bits it gives, and what is said of what cannot be read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_kit import photos
from PIL import Image
from run_kit import branch, differences, parts, resume, train

from progtrain.data.draws import Draws
from progtrain.data.folders import class_names, read_folders
from progtrain.data.image_folder import ImageFolder
from progtrain.data.loader import Loader
from progtrain.data.pictures import Pictures, centre_crop, decoded
from progtrain.data.sets import Batches
from progtrain.errors import ConfigError, EnvironmentProblem, SettingError
from progtrain.settings import Checkpoints

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("images") / "photos")


def folder(root: Path, **more: Any) -> ImageFolder:
    given = {"size": 8, "shape": (3, 8, 8), "num_classes": 3, "workers": 0, "cache": False} | more
    return ImageFolder(str(root), **given)


def settings(root: Path, *more: str) -> tuple[str, ...]:
    """A tiny run of images."""
    data = ("data=image_folder", f"data.root={root}", "data.size=8", "data.validation=0.25")
    model = ("model=cnn", "model.width=4", "model.depth=1", "model.dropout=0.2")
    return (
        *data,
        *model,
        "train.duration=14steps",
        "augment=cutout",
        "augment.cutout.size=3",
        *more,
    )


def test_classes_and_their_number_come_from_the_folders(root: Path) -> None:
    made = parts(*settings(root))
    sets = made.data.load()
    assert sets.classes == ("cats", "dogs", "owls") == class_names(str(root))
    assert made.data.num_classes == 3 and tuple(made.data.shape) == (3, 8, 8)
    assert made.model_factory({}).head.out_features == 3
    assert made.config["data"]["num_classes"] == 3
    assert sorted(sets.train.y.unique().tolist()) == [0, 1, 2]


def test_the_split_takes_a_seeded_share_of_every_class(root: Path) -> None:
    sets = folder(root, validation=0.25, test=0.25).load()
    assert sets.test is not None
    places = [split.source for split in (sets.train, sets.validation, sets.test)]
    assert sorted(torch.cat(places).tolist()) == list(range(36))  # type: ignore[arg-type]
    for split, count in ((sets.train, 6), (sets.validation, 3), (sets.test, 3)):
        assert split.y.bincount().tolist() == [count] * 3
    again, other = folder(root, validation=0.25).load(), folder(root, split_seed=1).load()
    assert torch.equal(again.validation.source, sets.validation.source)  # type: ignore[arg-type]
    assert not torch.equal(other.validation.source, sets.validation.source)  # type: ignore[arg-type]


def test_given_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        photos(tmp_path / part, count)
    sets = folder(tmp_path).load()
    assert sets.test is not None
    assert [len(s) for s in (sets.train, sets.validation, sets.test)] == [15, 6, 9]
    (tmp_path / "extra").mkdir()
    with pytest.raises(ConfigError, match="lies extra/, which is neither val nor test"):
        folder(tmp_path).load()


def test_a_given_part_without_validation_is_split(tmp_path: Path) -> None:
    photos(tmp_path / "train", 8)
    sets = folder(tmp_path, validation=0.25, test=0.5).load()
    assert (len(sets.train), len(sets.validation), sets.test) == (18, 6, None)


def test_evaluation_and_the_probe_see_the_middle_and_training_random_parts(root: Path) -> None:
    sets = folder(root).load()
    batches = Batches(sets, 0, CPU)
    index = torch.arange(6)
    reader = sets.train.reader
    assert isinstance(reader, Loader)
    middle = [
        np.asarray(centre_crop(8, 1.0)(decoded(reader.pictures.files[i], 3))) for i in range(6)
    ]
    want = sets.normalise(torch.from_numpy(np.stack(middle)).permute(0, 3, 1, 2))
    assert torch.equal(batches.taken(index)[0], want)
    varied = batches.taken(index, Draws(0, 0, 6))[0]
    assert not any(torch.equal(a, b) for a, b in zip(varied, want, strict=True))
    assert torch.equal(varied, batches.taken(index, Draws(0, 0, 6))[0])
    assert not torch.equal(varied, batches.taken(index, Draws(0, 6, 6))[0])
    assert isinstance(sets.validation.reader, Loader)
    assert sets.validation.reader.pictures.varied is None


def test_reading_draws_none_of_the_runs_random_numbers(root: Path) -> None:
    for workers in (0, 1):
        batches = Batches(folder(root, workers=workers).load(), 0, CPU)
        before = torch.get_rng_state()
        batches.taken(torch.arange(6), Draws(0, 0, 6))
        assert torch.equal(before, torch.get_rng_state())


VARIANTS = {
    "workers": ("data.workers=2", "data.cache=false"),
    "one worker": ("data.workers=1", "data.cache=false", "data.prefetch=1"),
    "cached": ("data.workers=0", "data.cache=true"),
    "cached workers": ("data.workers=1", "data.cache=true"),
}


@pytest.fixture(scope="module")
def alone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of one process that reads every file when it needs it."""
    made = parts(*settings(root, "data.workers=0", "data.cache=false"))
    every = replace(made, checkpoint=Checkpoints("1steps", 1000))
    return train(every, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_neither_workers_nor_a_cache_change_a_bit(
    variant: str, alone: Any, root: Path, tmp_path: Path
) -> None:
    made = parts(*settings(root, *VARIANTS[variant]))
    assert not differences(alone, train(made, tmp_path, store=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_in_the_same_bits(
    workers: int, alone: Any, root: Path, tmp_path: Path
) -> None:
    made = parts(*settings(root, f"data.workers={workers}", "data.cache=false"))
    assert not differences(alone, resume(made, branch(alone.directory, 5, tmp_path / "run")))


def test_images_that_do_not_vary_are_one_tensor_when_cached(root: Path, tmp_path: Path) -> None:
    still = ("data.crop=centre", "data.flip=0")
    sets = parts(*settings(root, *still, "data.cache=true")).data.load()
    assert sets.train.reader is None and sets.train.x.dtype is torch.uint8
    runs = [
        train(parts(*settings(root, *still, f"data.cache={c}")), tmp_path / c, store=False)
        for c in ("true", "false")
    ]
    assert not differences(*runs)


@pytest.mark.parametrize(
    "more",
    [
        ("curriculum=difficulty", "curriculum.score.steps=2"),
        ("curriculum=batch_size", "curriculum.every=20%", "curriculum.maximum=16"),
        ("growth=schedule", "mix=cutmix", "train.accumulate=2"),
    ],
    ids=str,
)
def test_a_wrong_guess_of_what_comes_next_changes_nothing(
    more: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    runs = [
        train(
            parts(*settings(root, f"data.workers={workers}", "data.cache=false", *more)),
            tmp_path / str(workers),
            store=False,
        )
        for workers in (0, 2)
    ]
    assert not differences(*runs)


def counting(loader: Loader) -> list[int]:
    """How often a loader begins anew."""
    begun: list[int] = []
    begin = loader._begin

    def noted(*args: Any) -> None:
        begun.append(1)
        begin(*args)

    loader._begin = noted  # type: ignore[method-assign]
    return begun


def test_workers_read_ahead_and_stay_alive(root: Path) -> None:
    loader = folder(root, workers=1).load().train.reader
    assert isinstance(loader, Loader)
    begun = counting(loader)

    def stream(first: int) -> Iterator[list[tuple[int, int | None]]]:
        return ([(i % 30, i)] for i in range(first, 99))

    pids: set[int | None] = set()
    for i in range(6):
        loader.read([(i, i)], stream(i + 1))
        pids |= {process.pid for process in loader._processes}
    assert len(begun) == 1
    loader.read([(20, 20)], stream(21))
    loader.read([(21, 21)], stream(22))
    assert len(begun) == 2 and len(pids) == 1
    loader.close()


def test_what_cannot_be_guessed_is_not_read_in_vain(root: Path) -> None:
    """After a guess that never came true, batches are read one by one until it would have."""
    loader = folder(root, workers=1).load().train.reader
    assert isinstance(loader, Loader)
    for i in range(5):
        loader.read([(i, i)], iter([[(7, 7)], [(8, 8)]]))
    assert len(loader._asked) == 0, "nothing is read ahead any more"
    for i in (7, 8):
        loader.read([(i, i)], iter([[(i + 1, i + 1)], [(i + 2, i + 2)]]))
    assert len(loader._asked) > 0, "and again once the guess was right"
    loader.close()


def saved(image: Image.Image, place: Path, **how: Any) -> Path:
    image.save(place, **how)
    return place


def test_files_of_any_kind_become_colours_or_grey(tmp_path: Path) -> None:
    red = Image.new("RGB", (4, 2), (200, 0, 0))
    grey16 = Image.fromarray(np.full((2, 4), 200 * 256, dtype=np.uint16))
    clear = Image.new("RGBA", (4, 2), (9, 9, 9, 0))
    palette = red.convert("P")
    cases = {
        "rgb": (red, (200, 0, 0)),
        "grey": (Image.new("L", (4, 2), 70), (70, 70, 70)),
        "grey16": (grey16, (200, 200, 200)),
        "alpha": (clear, (255, 255, 255)),
        "palette": (palette, palette.convert("RGB").getpixel((0, 0))),
        "bits": (Image.new("1", (4, 2), 1), (255, 255, 255)),
    }
    for name, (image, want) in cases.items():
        file = saved(image, tmp_path / f"{name}.png")
        got = decoded(file, 3)
        assert (got.mode, got.getpixel((1, 1))) == ("RGB", want), name
        assert decoded(file, 1).mode == "L"


def test_a_photo_stands_as_its_camera_was_held(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert decoded(saved(image, tmp_path / "turned.jpg", exif=exif), 3).size == (4, 6)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_with_its_index(workers: int, tmp_path: Path) -> None:
    photos(tmp_path)
    file = tmp_path / "dogs" / "03.png"
    file.write_bytes(file.read_bytes()[:60])
    sets = folder(tmp_path, workers=workers, validation=0.1).load()
    index = next(
        i
        for i, f in enumerate(sets.train.reader.pictures.files)
        if f == file  # type: ignore
    )
    with pytest.raises(ConfigError, match=rf"train sample {index} cannot be read: {file} is no"):
        list(Batches(sets, 0, CPU).every(sets.train, 8))
    file.unlink()
    with pytest.raises(EnvironmentProblem, match="is not there any more"):
        list(Batches(sets, 0, CPU).every(sets.train, 8))


class Slow:
    """A transform that never ends."""

    def __call__(self, image: Image.Image) -> Image.Image:
        time.sleep(60)
        return image


def stuck(root: Path, timeout: float) -> Loader:
    files = tuple(sorted((root / "cats").iterdir()))
    return Loader(Pictures("train", files, 3, Slow()), 1, 1, timeout)


def test_a_killed_worker_ends_the_run_with_a_message(root: Path) -> None:
    loader = stuck(root, 60)
    loader._begin([(4, None)], iter(()))
    (worker,) = loader._processes
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(
        EnvironmentProblem, match=r"was killed near train sample 4 .*04\.png"
    ) as why:
        loader._next([(4, None)])
    assert time.monotonic() - begun < 15
    assert why.value.exit_code == 5 and "data.workers=0" in str(why.value)


def test_a_worker_that_is_stuck_ends_the_run_and_not_the_day(root: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="gave nothing for 1 s near train sample 2"):
        stuck(root, 1).read([(2, None)])
    assert time.monotonic() - begun < 20


def test_workers_outlive_signals_to_the_whole_group(root: Path) -> None:
    loader = folder(root, workers=1).load().train.reader
    assert isinstance(loader, Loader)
    loader.read([(0, 0)], iter([[(1, 1)]]))
    (worker,) = loader._processes
    assert worker.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    time.sleep(0.2)
    assert worker.is_alive()
    loader.close()
    worker.join(5)
    assert not worker.is_alive()


def test_what_is_no_data_set_is_refused_with_what_one_is(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigError, match=r"No folder data\.root=.*fotos .*Did you mean 'photos'"):
        read_folders(str(tmp_path / "fotos"))
    with pytest.raises(ConfigError, match=r"has no folders of classes: two are needed"):
        read_folders(str(tmp_path / "photos"))
    photos(tmp_path / "one", 3, ("cats",))
    with pytest.raises(ConfigError, match=r"has one class only \(cats\)"):
        read_folders(str(tmp_path / "one"))
    photos(tmp_path / "two", 3)
    (tmp_path / "two" / "mice").mkdir()
    (tmp_path / "two" / "mice" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"mice holds no image \(\.png"):
        read_folders(str(tmp_path / "two"))
    file = tmp_path / "file.zip"
    file.touch()
    with pytest.raises(ConfigError, match="is a file"):
        read_folders(str(file))


def test_an_empty_part_is_named(tmp_path: Path) -> None:
    photos(tmp_path, 3)
    with pytest.raises(ConfigError, match=r"the validation split has 0 samples.*data\.validation"):
        folder(tmp_path, validation=0.1).load()


def test_a_score_of_all_pixels_needs_them_in_memory(root: Path, tmp_path: Path) -> None:
    scored = ("curriculum=difficulty", "curriculum/score=compression")
    with pytest.raises(ConfigError, match=r"compression looks at all .*data\.cache=true"):
        train(parts(*settings(root, "data.cache=false", *scored)), tmp_path, store=False)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"workers": -1}, r"workers must be a whole number from 0 to \d+ here \(\d+ cores\)"),
        ({"workers": 999}, r"workers must be a whole number from 0 to \d+ here"),
        ({"channels": 2}, r"channels must be 3"),
        ({"shape": (3, 9, 9)}, r"Set data\.size and data\.channels"),
        ({"crop": "middle"}, "crop must be random or centre"),
        ({"scale": (0.5, 0.2)}, "scale must be two shares"),
        ({"flip": 2}, "flip must be"),
        ({"centre": 0}, "centre must be"),
        ({"mean": (0.5,)}, "mean must be 3 numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "std must be above 0"),
        ({"validation": 1.0}, "validation must be"),
        ({"test": 0.95}, "test must be a share"),
        ({"cache": "maybe"}, "cache must be"),
        ({"prefetch": 0}, "prefetch must be"),
        ({"timeout": 0}, "timeout must be"),
    ],
)
def test_values_that_cannot_be_are_refused(more: dict[str, Any], match: str, root: Path) -> None:
    with pytest.raises(SettingError, match=match):
        folder(root, **more)
